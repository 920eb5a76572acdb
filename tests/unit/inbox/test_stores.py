"""Which store an INBOX_URL names."""

from pathlib import Path

import pytest

from socket_server.inbox import stores
from socket_server.inbox.inbox import Retention
from socket_server.inbox.memory import MemoryInbox
from socket_server.inbox.redis.store import RedisInbox
from socket_server.inbox.sqlite.client import SqliteClient

RETENTION = Retention()


def test_each_scheme_names_its_store() -> None:
    assert isinstance(stores.make("memory://", RETENTION), MemoryInbox)
    for url in ("redis://localhost:6379/3", "rediss://localhost", "unix:///run/redis.sock", "redis+sentinel://a,b/service"):
        assert isinstance(stores.make(url, RETENTION), RedisInbox)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("inbox.db", "inbox.db"),
        ("with%20space.db", "with space.db"),
        ("with space.db", "with space.db"),
        ("a#b.db", "a#b.db"),
        ("a%23b.db", "a#b.db"),
        ("a%3Fb.db", "a?b.db"),
        ("תיבה.db", "תיבה.db"),
        ("inbox.db?synchronous=full", "inbox.db"),
        ("inbox.db?synchronous=NORMAL", "inbox.db"),
    ],
)
def test_a_sqlite_url_names_a_file(tmp_path: Path, written: str, name: str) -> None:
    inbox = stores.make(f"sqlite:///{tmp_path}/{written}", RETENTION)
    assert isinstance(inbox, SqliteClient)
    inbox.open()
    try:
        assert [each.name for each in tmp_path.iterdir() if each.suffix == ".db"] == [name]
    finally:
        inbox.close()


def test_a_relative_sqlite_url_begins_where_the_server_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inbox = stores.make("sqlite:///data/inbox.db", RETENTION)
    inbox.open()
    inbox.close()
    assert (tmp_path / "data" / "inbox.db").exists()
