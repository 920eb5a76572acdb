"""The stores of the contract, and a real Redis for one of them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from socket_server.inbox.inbox import MICROSECONDS, Clock, Inbox, Retention
from socket_server.inbox.memory import MemoryInbox
from socket_server.inbox.redis.store import RedisInbox
from socket_server.inbox.sqlite.client import SqliteClient
from tests.inbox.files import MaintainedFile
from tests.redis_servers import RunningRedis

KINDS = ("memory", "sqlite", "client", "redis")
CLOCKED = ("memory", "sqlite", "redis")  # a storage process process has its own clock
LASTING = ("sqlite", "client", "redis")  # what they hold is still there for another process
SHARED = ("memory", "client", "redis")  # by threads; the SQLite store itself is for one

RETENTION = Retention(ttl_s=100.0, max_per_user=5)


class FakeClock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000 * MICROSECONDS

    def __call__(self) -> int:
        return self.now

    def step(self, seconds: float) -> None:
        self.now += round(seconds * MICROSECONDS)


class Store:
    """One kind of store, with a place for its data."""

    def __init__(self, kind: str, directory: Path, server: RunningRedis | None, stack: contextlib.ExitStack) -> None:
        self.kind = kind
        self._directory = directory
        self._number = 0
        self._server = server
        self._stack = stack

    def open(self, retention: Retention = RETENTION, clock: Clock | None = None) -> Any:
        """Return an inbox on this place's data; each call is like another process."""
        inbox = self._make(retention, clock)
        self._stack.callback(inbox.close)
        return inbox

    def clear(self) -> None:
        """Take another place, where nothing is."""
        self._number += 1
        if self._server is not None:
            self._server.client.flushall()

    def _make(self, retention: Retention, clock: Clock | None) -> Inbox:
        clocked = {} if clock is None else {"clock": clock}
        path = str(self._directory / f"inbox-{self._number}.db")
        match self.kind:
            case "memory":
                return MemoryInbox(retention, **clocked)
            case "sqlite":
                return MaintainedFile(path, retention, **clocked, index_at=30)
            case "client":
                assert clock is None
                return SqliteClient(path, retention)
        assert self._server is not None
        return RedisInbox(self._server.url, retention, **clocked)


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """The store that the test's parameter names (see `stores`)."""
    kind = request.param
    server = request.getfixturevalue("redis_server") if kind == "redis" else None
    with contextlib.ExitStack() as stack:
        yield Store(kind, tmp_path, server, stack)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def stores(*kinds: str) -> pytest.MarkDecorator:
    """Run a test over these kinds of store."""
    return pytest.mark.parametrize("store", kinds, indirect=True)
