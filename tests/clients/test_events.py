"""Ping and pong, namespaces and origins, as the official client sees them (contract, section 4)."""

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
    # A string in the last place would be taken for a recovery offset by the client.
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
