"""Clients that close when their test ends."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.integration.protocol import Client, PollingClient, RawWebSocket, WebSocketClient, client
from tests.servers import RunningServer

Opens = Callable[..., Client]
OpensRaw = Callable[..., RawWebSocket]


@pytest.fixture(scope="session", autouse=True)
def no_certificates_of_the_machine() -> Iterator[None]:
    """Some machines name their certificates in these variables, and requests then believes them above `verify=False`."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            patch.delenv(name, raising=False)
        yield


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


def polling(server: RunningServer, opens: Opens) -> PollingClient:
    opened = opens(server, "polling")
    assert isinstance(opened, PollingClient)
    return opened


def websocket(server: RunningServer, opens: Opens, query: str = "") -> WebSocketClient:
    opened = opens(server, "websocket", query=query)
    assert isinstance(opened, WebSocketClient)
    return opened


def upgrade(server: RunningServer, opens: Opens, client: PollingClient) -> WebSocketClient:
    return websocket(server, opens, query=f"&sid={client.handshake['sid']}")
