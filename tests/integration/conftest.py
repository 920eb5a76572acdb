"""Clients that close when their test ends."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.integration.protocol import Client, RawWebSocket, client
from tests.servers import RunningServer

Opens = Callable[..., Client]
OpensRaw = Callable[..., RawWebSocket]


@pytest.fixture
def opens() -> Iterator[Opens]:
    """Open Engine.IO sessions: `opens(server, transport, headers=…)`."""
    with contextlib.ExitStack() as stack:
        yield lambda server, *args, **kwargs: stack.enter_context(client(server, *args, **kwargs))


@pytest.fixture
def opens_raw() -> Iterator[OpensRaw]:
    """Open WebSockets over bare sockets: `opens_raw(server, headers=…)`."""

    def open_one(server: RunningServer, **options: object) -> RawWebSocket:
        return stack.enter_context(RawWebSocket(server.port, **options))  # type: ignore[arg-type]

    with contextlib.ExitStack() as stack:
        yield open_one
