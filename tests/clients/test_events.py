"""Events, acknowledgements, namespaces and origins with the official client (docs/protocol.md, "Events")."""

from typing import Any

import pytest

from tests.clients.official import TRANSPORTS, Clients
from tests.servers import PRODUCTION, RunningServer, mint


@pytest.mark.parametrize("credentials", [{}, {"token": mint("123")}], ids=["before authentication", "authenticated"])
def test_a_ping_is_answered_by_a_pong_and_an_acknowledgement(
    shared_server: RunningServer, clients: Clients, transport: str, credentials: dict[str, str]
) -> None:
    connection = clients.open(shared_server.url, **TRANSPORTS[transport], auth=credentials)
    connection.wait("auth_success" if credentials else "connect")
    connection.emit("ping")
    connection.wait("pong")
    connection.ask("ping")
    connection.wait("ack")
    connection.wait("pong", 2)
    # The client would store a string in the last place as its offset.
    assert [pong.args for pong in connection.all("pong")] == [[None], [None]]


def test_an_event_that_the_server_does_not_know_changes_nothing(
    shared_server: RunningServer, clients: Clients, transport: str
) -> None:
    connection = clients.open(shared_server.url, **TRANSPORTS[transport], auth={"token": mint("123")})
    connection.wait("auth_success")
    connection.emit("shout", {"to": "everyone"})
    connection.emit("notification", {"title": "forged"})
    connection.emit("message", "text")
    connection.ask("ping")
    connection.wait("ack")
    assert not connection.all("notification")
    assert not connection.all("disconnect")


def test_another_namespace_is_refused(shared_server: RunningServer, clients: Clients, transport: str) -> None:
    connection = clients.open(f"{shared_server.url}/admin", **TRANSPORTS[transport], auth={"token": mint("123")})
    assert connection.wait("connect_error").args[0] == "Invalid namespace"
    assert not connection.all("connect")
    assert not connection.history[-1].active


def test_a_web_page_of_an_unknown_origin_is_refused(shared_server: RunningServer, clients: Clients, transport: str) -> None:
    for origin in ("http://evil.example", "https://app.example.com", "http://app.example.com.evil.example", "null"):
        connection = clients.open(
            shared_server.url, **TRANSPORTS[transport], auth={"token": mint("123")}, extraHeaders={"Origin": origin}
        )
        refusal = connection.wait("connect_error")
        assert refusal.args[1] == 403, (origin, refusal)
        assert not connection.all("connect")


def test_a_web_page_of_an_allowed_origin_is_served(shared_server: RunningServer, clients: Clients, transport: str) -> None:
    headers = {"Origin": PRODUCTION["CLIENT_URL"]}
    connection = clients.open(shared_server.url, **TRANSPORTS[transport], auth={"token": mint("123")}, extraHeaders=headers)
    connection.wait("auth_success")
    if transport == "default":
        connection.wait("upgrade")


def test_an_expired_token_is_refused_once_by_a_client_that_retries(
    shared_server: RunningServer, own_clients: Clients, transport: str
) -> None:
    """With `retries` the client sends an event that was not acknowledged again, before anything else."""
    expired = {"userId": "123", "jwt": mint("123", lifetime_s=-60)}
    connection = own_clients.open(shared_server.url, **TRANSPORTS[transport], login=expired, retries=3, ackTimeout=1000)
    for count in (1, 2):
        assert connection.wait("auth_error", count).args[0]["code"] == "expired_token"
        assert connection.wait("disconnect", count).args[0] == "io server disconnect"
        own_clients.tell("reconnect", name=connection._name, login=expired if count == 1 else {"jwt": mint("123")})
    connection.wait("auth_success")
    connection.ask("ping")
    connection.wait("ack")
    assert len(connection.all("auth_error")) == 2
    assert len(connection.all("connect")) == 3


@pytest.mark.parametrize("options", [{"forceBase64": True}, {"protocols": ["p1"]}, {"protocols": ["p1", "p2"]}], ids=str)
def test_binary_events_and_subprotocols_work_over_websocket(
    shared_server: RunningServer, clients: Clients, options: dict[str, Any]
) -> None:
    options = {**TRANSPORTS["websocket"], **options}
    connection = clients.open(shared_server.url, **options, auth={"token": mint("123")})
    connection.wait("auth_success")
    clients.tell("emitBytes", name=connection._name, event="ping", bytes=[0, 30, 255])
    connection.wait("ack")
    assert not connection.all("disconnect")
