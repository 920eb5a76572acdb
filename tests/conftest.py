"""Shared fixtures. A missing tool skips a test on a developer's machine, and fails it if CI=true."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.redis_servers import RunningRedis
from tests.servers import ROOT, RunningServer, running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """A real gunicorn on a free port, in production mode, for one test."""
    with running(tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real gunicorn for all tests of a module that leave nothing behind."""
    with running(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Return the path of a program, or skip the test with the reason."""

    def find(name: str) -> str:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
        if path is None:
            unavailable(f"{name} is not installed")
        assert path is not None
        return path

    return find


@pytest.fixture(scope="session")
def node(tool: Callable[[str], str]) -> str:
    """Return the path of node, where the official client is installed too."""
    path = tool("node")
    if not (ROOT / "tests/clients/node_modules/socket.io-client").is_dir():
        unavailable("the official client is not installed: run make setup")
    return path


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


def unavailable(reason: str) -> None:
    """Skip a test whose tool is missing; fail it if CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and in CI everything is")
    pytest.skip(reason)
