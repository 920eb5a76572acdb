"""Fixtures of the tests with the official client."""

from collections.abc import Iterator

import pytest

from tests.clients.official import TRANSPORTS, Clients


@pytest.fixture
def clients(node: str) -> Iterator[Clients]:
    """A Node process that opens connections with the official client."""
    started = Clients(node)
    yield started
    started.script.stop()


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """The test runs by default (polling, then the upgrade), over WebSocket only, and over polling only."""
    name: str = request.param
    return name
