"""Fixtures of the tests with the official client."""

from collections.abc import Iterator

import pytest

from tests.clients.official import TRANSPORTS, Clients


@pytest.fixture(scope="module")
def node_process(node: str) -> Iterator[Clients]:
    started = Clients(node)
    yield started
    started.stop()


@pytest.fixture
def clients(node_process: Clients) -> Iterator[Clients]:
    """What opens connections with the official client; they are closed after the test."""
    yield node_process
    node_process.close_all()


@pytest.fixture
def own_clients(node: str) -> Iterator[Clients]:
    """The same in a process of its own, which may be blocked or stopped."""
    started = Clients(node)
    yield started
    started.stop()


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """The test runs by default (polling, then the upgrade), over WebSocket only, and over polling only."""
    name: str = request.param
    return name
