"""The file of the inbox belongs to one user alone."""

import os
import socket
from pathlib import Path

import pytest

from socket_server.errors import InboxUnavailable
from socket_server.inbox.inbox import Entry, Retention
from socket_server.inbox.sqlite.file import SqliteFile
from socket_server.inbox.sqlite.ownership import secure


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "inbox.db"
    device, inode = secure(str(path))
    assert mode(path) == 0o600
    assert (device, inode) == (path.stat().st_dev, path.stat().st_ino)


@pytest.mark.parametrize("before", [0o666, 0o640, 0o604, 0o777])
def test_a_file_that_others_can_read_becomes_private(tmp_path: Path, before: int) -> None:
    files = [tmp_path / name for name in ("inbox.db", "inbox.db-wal", "inbox.db-shm")]
    for path in files:
        path.touch()
        path.chmod(before)
    secure(str(files[0]))
    assert [mode(path) for path in files] == [0o600] * 3


def test_the_mode_of_an_existing_inbox_is_set_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "inbox.db"
    inbox = SqliteFile(str(path), Retention())
    inbox.append([Entry(("ada",), b"x")])
    inbox.close()
    path.chmod(0o666)
    again = SqliteFile(str(path), Retention())
    again.open()
    assert {mode(each) for each in tmp_path.iterdir()} == {0o600}
    again.close()


@pytest.mark.parametrize("target", ["missing.db", "other.db"])
def test_a_symbolic_link_is_refused_and_its_target_left_alone(tmp_path: Path, target: str) -> None:
    (tmp_path / "other.db").touch(0o666)
    (tmp_path / "other.db").chmod(0o666)
    link = tmp_path / "inbox.db"
    link.symlink_to(tmp_path / target)
    with pytest.raises(InboxUnavailable, match="symbolic link"):
        secure(str(link))
    with pytest.raises(InboxUnavailable, match="symbolic link"):
        SqliteFile(str(link), Retention()).open()
    assert mode(tmp_path / "other.db") == 0o666
    assert not (tmp_path / "missing.db").exists()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name in ("fifo", "socket"):
            with pytest.raises(InboxUnavailable, match=r"no regular file|no file"):
                secure(str(tmp_path / name))


def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "inbox.db"
    path.touch()
    try:
        os.chown(path, 65_534, -1)
    except PermissionError:
        pytest.skip("only root can give a file away")
    with pytest.raises(InboxUnavailable, match="chown"):
        secure(str(path))
