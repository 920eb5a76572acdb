"""What befalls the SQLite inbox of a running server, or of one that starts: a full or read-only disk, another program's
lock, a corrupt or deleted file, the end of its process (contract, sections 2 and 6).

Each time: a broadcast is a 503 that says what to do, /health too, connections stay open; and once the cause is gone all
goes on by itself, with everything that was answered 200.
"""

import contextlib
import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from socket_server.inbox.inbox import Entry, Retention
from socket_server.inbox.sqlite.file import SqliteFile
from tests.integration.conftest import Opens
from tests.integration.protocol import Client
from tests.servers import API_KEY, RunningServer, mint, running, wait_for

KEY = {"Authorization": f"Bearer {API_KEY}"}
PATIENCE_S = 30.0  # SQLite waits 5 s for a lock, the server 10 s for a storage process that is silent

FULL = "the disk is full"
LOCKED = "another program keeps it locked"
CORRUPT = "the file is corrupt"
LOST = "the storage process was lost"
READ_ONLY = "Read-only file system"


Repair = Callable[[], object]


class Disk:
    """A small file system, mounted by the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._mount("-t", "tmpfs", "-o", "size=1m,mode=700", "inbox-test")

    def remount(self, options: str) -> bool:
        """Return whether it could be done: a file that is open for writing cannot become read-only."""
        try:
            self._mount("-o", f"remount,{options}")
        except OSError:
            return False
        return True

    def _mount(self, *options: str) -> None:
        done = subprocess.run(["mount", *options, str(self.directory)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr.strip())

    def fill(self) -> Path:
        """Leave no room at all; return the file that has taken it."""
        filler = self.directory / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4_096))
        return filler

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.directory)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A file system of 1 MB."""
    (tmp_path / "disk").mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount")
    try:
        mounted = Disk(tmp_path / "disk")
    except OSError as error:
        pytest.skip(f"this user may not mount a file system: {error}")
    yield mounted
    mounted.unmount()


def ask(server: RunningServer, method: str, path: str, **options: Any) -> requests.Response:
    """Send a request from any thread, and wait longer than the server waits for its inbox."""
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, server.url + path, headers=KEY, timeout=PATIENCE_S, **options)


class Scene:
    """A server, a user who is connected to it, and what was answered 200."""

    def __init__(self, server: RunningServer, opens: Opens, user_id: str = "ada") -> None:
        self.server = server
        self.user_id = user_id
        self._opens = opens
        self.client = self.another()
        self.answered: list[dict[str, Any]] = []  # as GET /users/<id>/notifications lists it
        self.refused = 0
        self._numbers = itertools.count(1)
        self.client.sign_in({"token": mint(user_id)})

    def another(self) -> Client:
        """Open another session, not signed in."""
        return self._opens(self.server)

    def post(self, **fields: Any) -> requests.Response:
        """Broadcast to the user; a 200 is kept in mind, anything but that and a proper 503 fails."""
        notification = {"title": f"number {next(self._numbers)}", **fields}
        asked = {"userIds": [self.user_id], "notification": notification}
        answer = ask(self.server, "POST", "/broadcast", json=asked)
        if answer.status_code == 200:
            assert answer.json()["totalSockets"] == 1
            self.answered.append({"id": answer.json()["id"], "notification": notification})
        else:
            assert answer.status_code == 503, answer.text
            assert answer.headers["Retry-After"] == "1"
            assert set(answer.json()) == {"error", "message"}
            self.refused += 1
        return answer

    def say(self, **fields: Any) -> None:
        """A broadcast is taken, and it is the next thing that the client gets."""
        answer = self.post(**fields)
        assert answer.status_code == 200, answer.text
        newest = self.answered[-1]
        assert self.client.event() == ["notification", newest["notification"], newest["id"]]

    def is_down(self, reason: str) -> None:
        """Nothing is taken, which is said with its reason; the user stays connected."""
        assert reason in wait_for(self._refusal, what="a refusal")
        health = wait_for(lambda: self._health(503), PATIENCE_S, "an unhealthy /health")
        assert health["status"] == "unhealthy"
        assert list(health["checks"]) == ["inbox"]
        assert reason in health["checks"]["inbox"]
        assert self.server.get("/health/live").status_code == 200
        self.client.pong()
        assert self.server.stats()["totalConnections"] == 1

    def is_up_again(self) -> None:
        """All is well, by itself; nothing that was answered 200 is missing, and nothing else is there."""
        assert "checks" not in wait_for(lambda: self._health(200), PATIENCE_S, "a healthy /health")
        self.say()
        self.say()
        self.client.pong()
        assert self.kept() == self.answered

    def kept(self) -> list[dict[str, Any]]:
        answer = self.server.get(f"/users/{self.user_id}/notifications?limit=1000", headers=KEY)
        assert answer.status_code == 200, answer.text
        return [{"id": each["id"], "notification": each["notification"]} for each in answer.json()["notifications"]]

    def logged(self, reason: str) -> list[str]:
        return [line for line in self.server.log().splitlines() if reason in line]

    def logged_once(self, reason: str) -> None:
        """The log has the reason in one line for each refusal and one for /health, however often that was asked."""
        lines = self.logged(reason)
        assert len([line for line in lines if "health:" in line]) == 1, lines
        assert len([line for line in lines if "refused" in line]) == self.refused, lines
        assert len(lines) == self.refused + 1, lines

    def _refusal(self) -> str | None:
        answer = self.post()
        if answer.status_code == 503:
            return str(answer.json()["message"])
        newest = self.answered[-1]  # the fault has not been noticed yet
        assert self.client.event() == ["notification", newest["notification"], newest["id"]]
        return None

    def _health(self, status: int) -> dict[str, Any] | None:
        answer = ask(self.server, "GET", "/health")
        return answer.json() if answer.status_code == status else None


Stage = Callable[[Path], Scene]


@pytest.fixture
def stage(tmp_path: Path, opens: Opens) -> Iterator[Stage]:
    """Start a server on an inbox, and connect a user."""
    with contextlib.ExitStack() as stack:

        def start(inbox: Path) -> Scene:
            return Scene(stack.enter_context(running(tmp_path, INBOX_URL=f"sqlite:///{inbox}")), opens)

        yield start


def together(*acts: Callable[[], None]) -> None:
    """Act at the same time; fail with all that has failed."""
    with ThreadPoolExecutor(len(acts)) as pool:
        failures = [each.exception() for each in [pool.submit(act) for act in acts]]
    found = [each for each in failures if isinstance(each, Exception)]
    if found:
        raise ExceptionGroup("together", found)


def storage_process_of(server: RunningServer) -> int | None:
    """Return the process id of the server's storage process: a child of a child of gunicorn's."""

    def children(pid: int) -> list[int]:
        with contextlib.suppress(OSError):
            return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return []

    for worker in children(server.process.pid):
        for pid in children(worker):
            with contextlib.suppress(OSError):
                if b"socket_server.inbox.sqlite.storage_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
    return None


def kill_storage_process(server: RunningServer) -> int:
    """Kill the storage process and return once it is gone."""
    pid: int = wait_for(lambda: storage_process_of(server), what="a storage process")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: _state(pid) in ("Z", ""), what="the end of the storage process")
    return pid


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def checkpoint(path: Path) -> None:
    """Have all of the inbox in its main file, and its server read that anew: as another program's write does."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE meta SET value = value")
        assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


def restore(path: Path, content: bytes) -> None:
    """Put a file back in one step: a server that looks while it is still empty takes it for a new one."""
    whole = path.with_name("restored")
    whole.write_bytes(content)
    whole.rename(path)


def overwrite(path: Path, part: str) -> None:
    """Write garbage over the beginning of a file, or over all but its first page."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(0 if part == "header" else 4_096)
        file.write(os.urandom(4_096 if part == "header" else size - 4_096))


# The disk


def test_a_full_disk_refuses_until_there_is_room_and_gives_out_what_it_holds(disk: Disk, stage: Stage) -> None:
    scene = stage(disk.directory / "inbox.db")
    large = "x" * 40_000
    for _ in range(100):
        if scene.post(body=large).status_code == 503:
            break
        newest = scene.answered[-1]
        assert scene.client.event() == ["notification", newest["notification"], newest["id"]]
    assert len(scene.answered) > 5
    disk.fill()  # what is too little for a large notification may do for a small one
    scene.is_down(FULL)
    scene.logged_once(FULL)
    assert scene.kept() == scene.answered
    other = scene.another()
    first, second = scene.answered[-2:]
    assert other.sign_in({"token": mint("ada"), "lastId": first["id"]})["recovered"] is True
    assert other.event() == ["notification", second["notification"], second["id"]]
    other.close()
    scene.server.wait_for_connections(1)
    assert disk.remount("size=8m")
    scene.is_up_again()


def test_a_disk_that_fills_up_while_nothing_new_is_stored_is_noticed(disk: Disk, stage: Stage) -> None:
    scene = stage(disk.directory / "inbox.db")
    scene.say()
    live = {"userIds": ["nobody"], "notification": {}, "ttl": 0}  # takes an offset, and leaves nothing to be written later
    assert ask(scene.server, "POST", "/broadcast", json=live).status_code == 200
    filler = disk.fill()
    scene.is_down(FULL)
    filler.unlink()
    scene.is_up_again()


def test_a_directory_that_turns_read_only_refuses_until_it_can_be_written(disk: Disk, stage: Stage) -> None:
    scene = stage(disk.directory / "inbox.db")
    scene.say()
    scene.say()

    def turn_read_only() -> bool:
        # Linux does not let it while the storage process has the file open; the next one finds it read-only.
        kill_storage_process(scene.server)
        return disk.remount("ro")

    wait_for(turn_read_only, what="a read-only file system")
    wait_for(lambda: READ_ONLY in scene.post().json().get("message", ""), what="a refusal that names the cause")
    scene.is_down(READ_ONLY)
    assert disk.remount("rw")
    scene.is_up_again()


# The file


def _overwrite_while_it_runs(stage: Stage, path: Path, part: str) -> None:
    scene = stage(path)
    for _ in range(5):
        scene.say()
    checkpoint(path)
    good = path.read_bytes()
    overwrite(path, part)
    scene.is_down(CORRUPT)
    scene.logged_once(CORRUPT)
    for beside in path.parent.glob("inbox.db-*"):
        beside.unlink()
    restore(path, good)
    scene.is_up_again()


def test_a_file_overwritten_with_garbage_refuses_until_it_is_restored(tmp_path: Path, stage: Stage) -> None:
    together(
        lambda: _overwrite_while_it_runs(stage, tmp_path / "1" / "inbox.db", "header"),
        lambda: _overwrite_while_it_runs(stage, tmp_path / "2" / "inbox.db", "middle"),
    )


def test_a_corrupt_file_that_is_moved_away_lets_the_server_begin_anew(tmp_path: Path, stage: Stage) -> None:
    path = tmp_path / "inbox.db"
    scene = stage(path)
    scene.say()
    checkpoint(path)
    overwrite(path, "header")
    scene.is_down(CORRUPT)
    for each in tmp_path.glob("inbox.db*"):
        each.rename(tmp_path / f"corrupt-{each.name}")
    scene.answered.clear()
    scene.is_up_again()


def _delete_while_it_runs(stage: Stage, path: Path, pattern: str) -> None:
    scene = stage(path)
    scene.say()
    scene.say()
    before = scene.answered[0]["id"]
    for each in path.parent.glob(pattern):
        each.unlink()
    scene.answered.clear()
    scene.is_up_again()
    assert len(scene.logged("inbox.db was removed or replaced")) == 1, scene.server.log()
    assert path.stat().st_mode & 0o777 == 0o600
    assert min(int(each["id"]) for each in scene.answered) > int(before)
    other = scene.another()
    assert other.sign_in({"token": mint("ada"), "lastId": before})["recovered"] is False
    # The broadcasts were stored in the file at the path: the next server that opens it finds them.
    scene.server.stop(signal.SIGKILL)
    store = SqliteFile(str(path), Retention())
    page = wait_for(lambda: store.since("ada", 0, None, 10, 10_000))
    assert [str(each.offset) for each in page.notifications] == [each["id"] for each in scene.answered]
    store.close()


def test_a_file_deleted_under_the_server_is_made_anew_and_clients_and_the_log_say_so(tmp_path: Path, stage: Stage) -> None:
    together(
        lambda: _delete_while_it_runs(stage, tmp_path / "1" / "inbox.db", "inbox.db"),
        lambda: _delete_while_it_runs(stage, tmp_path / "2" / "inbox.db", "inbox.db*"),
    )


# The process


def test_a_killed_storage_process_is_replaced_and_nothing_answered_is_lost(tmp_path: Path, stage: Stage) -> None:
    scene = stage(tmp_path / "inbox.db")
    scene.say()
    enough, killed = threading.Event(), 0

    def keep_posting() -> None:
        while not enough.is_set():
            scene.post()

    poster = threading.Thread(target=keep_posting)
    poster.start()
    try:
        for _ in range(3):
            seen = len(scene.answered)
            wait_for(lambda seen=seen: len(scene.answered) > seen + 20, what="posts that are taken")
            kill_storage_process(scene.server)
            killed += 1
        seen = len(scene.answered)
        wait_for(lambda: len(scene.answered) > seen + 20, what="posts that are taken")
    finally:
        enough.set()
        poster.join()
    last = scene.answered[-1]["id"]
    received = list(iter(lambda: scene.client.event()[1:], [scene.answered[-1]["notification"], last]))
    offsets = [int(offset) for _, offset in received] + [int(last)]
    assert offsets == sorted(set(offsets))  # each once, in order
    assert {each["id"] for each in scene.answered[1:]} <= {str(each) for each in offsets}
    # A post whose answer was lost may be kept, and then it was delivered too.
    kept = scene.kept()
    assert [each for each in kept if each in scene.answered] == scene.answered
    assert [int(each["id"]) for each in kept[1:]] == offsets
    assert len(scene.logged(LOST)) <= killed + scene.refused
    assert len([line for line in scene.logged(LOST) if "refused" not in line and "health" not in line]) == killed


def test_a_storage_process_that_stops_for_a_moment_delays_no_other_request(tmp_path: Path, stage: Stage) -> None:
    scene = stage(tmp_path / "inbox.db")
    scene.say()
    pid = storage_process_of(scene.server)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    poster = threading.Thread(target=scene.post)
    try:
        poster.start()
        for _ in range(20):
            scene.client.pong()
            assert scene.server.get("/health/live").status_code == 200
        assert poster.is_alive()
    finally:
        os.kill(pid, signal.SIGCONT)
    poster.join()
    newest = scene.answered[-1]
    assert scene.client.event() == ["notification", newest["notification"], newest["id"]]
    assert len(scene.answered) == 2
    assert storage_process_of(scene.server) == pid
    scene.is_up_again()
    assert not scene.logged(LOST)


# The start


def _is_corrupt(path: Path) -> Repair:
    good = path.read_bytes()
    overwrite(path, "header")
    return lambda: restore(path, good)


def _is_corrupt_within(path: Path) -> Repair:
    good = path.read_bytes()
    overwrite(path, "middle")
    return lambda: restore(path, good)


def _is_a_directory(path: Path) -> Repair:
    aside = path.rename(path.with_suffix(".aside"))
    path.mkdir()

    def repair() -> None:
        path.rmdir()
        aside.rename(path)

    return repair


def _lies_in_no_directory(path: Path) -> Repair:
    aside = path.parent.rename(path.parent.with_suffix(".aside"))
    path.parent.write_bytes(b"no directory")

    def repair() -> None:
        path.parent.unlink()
        aside.rename(path.parent)

    return repair


def _has_another_format(path: Path) -> Repair:
    def set_format(number: int) -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute(f"PRAGMA user_version = {number}")

    set_format(99)
    return lambda: set_format(1)


def _is_locked(path: Path) -> Repair:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("BEGIN EXCLUSIVE")
    return db.close


def starts_without(stage: Stage, path: Path, spoil: Callable[[Path], Repair], reason: str) -> None:
    """A server starts though its inbox cannot be opened, and uses what is in there once it can."""
    path.parent.mkdir(parents=True)
    store = SqliteFile(str(path), Retention())
    store.open()
    before = [store.append([Entry(("ada",), b'{"title":"before"}')], None).outcomes[0] for _ in range(3)]
    store.close()
    repair = spoil(path)
    try:
        scene = stage(path)
        scene.answered = [{"id": str(each), "notification": {"title": "before"}} for each in before]
        # Clients that would recover cannot be served now: their transport is closed, and they reconnect.
        missed = scene.another()
        missed.connect({"token": mint("ada"), "lastId": str(before[0])})
        assert missed.receive() is None
        scene.server.wait_for_connections(1)
        scene.is_down(reason)
    finally:
        repair()
    scene.is_up_again()
    back = scene.another()
    success = back.sign_in({"token": mint("ada"), "lastId": str(before[0])})
    assert (success["recovered"], success["replayed"]) == (True, len(scene.answered) - 1)
    assert [back.event()[2] for _ in scene.answered[1:]] == [each["id"] for each in scene.answered[1:]]


def test_a_server_whose_inbox_cannot_be_opened_starts_and_uses_it_once_it_can(tmp_path: Path, stage: Stage) -> None:
    together(
        lambda: starts_without(stage, tmp_path / "1" / "inbox.db", _is_corrupt, CORRUPT),
        lambda: starts_without(stage, tmp_path / "2" / "inbox.db", _is_corrupt_within, CORRUPT),
        lambda: starts_without(stage, tmp_path / "3" / "inbox.db", _is_a_directory, "Is a directory"),
        lambda: starts_without(stage, tmp_path / "4" / "inbox.db", _lies_in_no_directory, "must exist and be writable"),
        lambda: starts_without(stage, tmp_path / "5" / "inbox.db", _has_another_format, "name another file in INBOX_URL"),
    )


def test_a_server_whose_directory_is_read_only_starts_and_uses_it_once_it_can_be_written(disk: Disk, stage: Stage) -> None:
    assert disk.remount("ro")
    scene = stage(disk.directory / "inbox.db")
    scene.is_down(READ_ONLY)
    assert disk.remount("rw")
    scene.is_up_again()


# What the server waits for, 5 and 10 s long: all of it at once


def _lock_while_it_runs(stage: Stage, path: Path) -> None:
    scene = stage(path)
    scene.say()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        scene.is_down(LOCKED)
        assert scene.kept() == scene.answered  # reading goes on
        db.execute("ROLLBACK")
    scene.is_up_again()
    scene.logged_once(LOCKED)
    assert not scene.logged(LOST)


def _lock_at_the_start(stage: Stage, path: Path) -> None:
    starts_without(stage, path, _is_locked, LOCKED)


def _stop_the_storage_process(stage: Stage, path: Path) -> None:
    scene = stage(path)
    scene.say()
    pid = storage_process_of(scene.server)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    health: list[requests.Response] = []
    asker = threading.Thread(target=lambda: health.append(ask(scene.server, "GET", "/health")))
    asker.start()
    stopped = time.monotonic()
    answer = scene.post()
    asker.join()
    assert time.monotonic() - stopped < 7  # five seconds without an answer, and its end
    assert answer.status_code == health[0].status_code == 503
    assert LOST in answer.json()["message"]
    assert LOST in health[0].json()["checks"]["inbox"]
    scene.client.pong()
    scene.is_up_again()
    assert storage_process_of(scene.server) not in (pid, None)
    assert _state(pid) == ""
    assert len([line for line in scene.logged(LOST) if "refused" not in line and "health" not in line]) == 1


def test_a_lock_and_a_storage_process_that_stays_stopped_refuse_until_they_are_gone(tmp_path: Path, stage: Stage) -> None:
    together(
        lambda: _lock_while_it_runs(stage, tmp_path / "1" / "inbox.db"),
        lambda: _lock_at_the_start(stage, tmp_path / "2" / "inbox.db"),
        lambda: _stop_the_storage_process(stage, tmp_path / "3" / "inbox.db"),
    )
