"""The stores of the contract, and a real Redis for one of them."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from socket_server.inbox.embedded import EmbeddedInbox
from socket_server.inbox.inbox import MICROSECONDS, Clock, Inbox, Retention
from socket_server.inbox.memory import MemoryInbox
from socket_server.inbox.redis import RedisInbox
from socket_server.inbox.sqlite import SqliteInbox
from tests.servers import free_port, wait_for

KINDS = ("memory", "sqlite", "embedded", "redis")
CLOCKED = ("memory", "sqlite", "redis")  # a keeper process has its own clock
LASTING = ("sqlite", "embedded", "redis")  # what they hold is still there for another process
SHARED = ("memory", "embedded", "redis")  # by threads; the SQLite store itself is for one

RETENTION = Retention(ttl_s=100.0, max_per_user=5)


class FakeClock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000 * MICROSECONDS

    def __call__(self) -> int:
        return self.now

    def step(self, seconds: float) -> None:
        self.now += round(seconds * MICROSECONDS)


class RunningRedis:
    """A redis-server of this test run, or a Sentinel. options: its configuration file, if any, comes first."""

    def __init__(self, program: str, directory: Path, *options: str, password: str = "") -> None:
        self.port = free_port()
        self._log = directory / f"redis-{self.port}.log"
        self._command = [program, *options, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory)]
        if "--sentinel" not in options:
            self._command += ["--save", "", "--appendonly", "no"]
        if password:
            self._command += ["--requirepass", password]
        self.url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}/0"
        self.client = redis.Redis.from_url(self.url)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it (again), and return once it answers."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_for(self._answers, what="an answer of Redis")

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self._log.read_text()
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False


@pytest.fixture(scope="module")
def run_redis(
    tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., RunningRedis]]:
    """Start redis-servers that end with the module."""
    running: list[RunningRedis] = []

    def run(*options: str, password: str = "") -> RunningRedis:
        running.append(RunningRedis(tool("redis-server"), tmp_path_factory.mktemp("redis"), *options, password=password))
        return running[-1]

    yield run
    for each in running:
        each.client.close()
        each.kill()


@pytest.fixture(scope="module")
def shared_redis(run_redis: Callable[..., RunningRedis]) -> RunningRedis:
    """A Redis for all tests of a module that leave it running."""
    return run_redis()


@pytest.fixture
def redis_server(shared_redis: RunningRedis) -> RunningRedis:
    """An empty Redis."""
    shared_redis.client.flushall()
    return shared_redis


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
                return SqliteInbox(path, retention, **clocked, index_at=30)
            case "embedded":
                assert clock is None
                return EmbeddedInbox(path, retention)
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
