"""Each place for credentials, and each refusal, over each transport (docs/protocol.md, "Authentication")."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.official import TRANSPORTS, Clients, Connection, latency
from tests.identity_provider import Provider, signed
from tests.servers import RunningServer, mint, running, wait_for

OTHER_SECRET = "another-secret-that-is-long-enough-0123456789"

# The places for credentials: what the page passes to Clients.open.
PLACES: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "auth object with token": lambda user, token: {"auth": {"token": token, "userId": user}},
    "auth object with jwt": lambda user, token: {"auth": {"jwt": f"Bearer {token}"}},
    "cookies": lambda user, token: {"extraHeaders": {"Cookie": f"jwt={token}; id={user}"}},
    "cookies with a prefix": lambda user, token: {
        "extraHeaders": {"Cookie": f"theme=dark; id={user}; jwt=bearer%20{token}"}
    },
    "Authorization header": lambda user, token: {"extraHeaders": {"Authorization": f"Bearer {token}"}},
    "auth event": lambda user, token: {"login": {"userId": user, "jwt": token}},
    "auth event with a prefix": lambda user, token: {"login": {"userId": user, "jwt": f"bearer {token}"}},
}

# What each code takes, and the message that goes with it. With a user id beside the token if it matters.
REFUSALS: dict[str, tuple[str, str, Callable[[], dict[str, Any]]]] = {
    "cookie without the user's": (
        "missing_credentials",
        "Not authenticated - missing credentials",
        lambda: {"extraHeaders": {"Cookie": f"jwt={mint('123')}"}},
    ),
    "auth event without a token": (
        "missing_credentials",
        "Not authenticated - missing credentials",
        lambda: {"login": {"userId": "123"}},
    ),
    "not a token": ("invalid_format", "Invalid JWT format", lambda: {"auth": {"token": "not-a-token"}}),
    "not a token in the auth event": (
        "invalid_format",
        "Invalid JWT format",
        lambda: {"login": {"userId": "123", "jwt": "bearer a.b"}},
    ),
    "another secret": (
        "invalid_token",
        "Invalid or expired JWT",
        lambda: {"auth": {"token": mint("123", secret=OTHER_SECRET)}},
    ),
    "another secret in the header": (
        "invalid_token",
        "Invalid or expired JWT",
        lambda: {"extraHeaders": {"Authorization": f"Bearer {mint('123', secret=OTHER_SECRET)}"}},
    ),
    "no user in the token": ("invalid_token", "Invalid or expired JWT", lambda: {"auth": {"token": mint(None)}}),
    "expired": ("expired_token", "Invalid or expired JWT", lambda: {"auth": {"token": mint("123", lifetime_s=-60)}}),
    "another user": (
        "user_mismatch",
        "UserId does not match JWT",
        lambda: {"auth": {"token": mint("123"), "userId": "456"}},
    ),
    "another user in the auth event": (
        "user_mismatch",
        "UserId does not match JWT",
        lambda: {"login": {"userId": "456", "jwt": mint("123")}},
    ),
    "nothing at all": ("auth_timeout", "Authentication timeout", dict),
}


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that waits briefly, forgives nothing, and lets a user have two connections."""
    with running(tmp_path_factory.mktemp("server"), AUTH_TIMEOUT=0.5, JWT_LEEWAY=0, MAX_CONNECTIONS_PER_USER=2) as started:
        yield started


def assert_sent_away(connection: Connection, code: str, message: str) -> None:
    """It was told why, then disconnected by the server, and will not come back by itself."""
    assert connection.wait("auth_error").args == [{"message": message, "code": code}]
    gone = connection.wait("disconnect")
    assert gone.args == ["io server disconnect"]
    assert not gone.active
    assert [happening.event for happening in connection.history if happening.event != "upgrade"][-2:] == [
        "auth_error",
        "disconnect",
    ]
    assert not connection.all("connect_error")
    assert not connection.all("reconnect_attempt")
    assert len(connection.all("auth_error")) == len(connection.all("disconnect")) == 1


@pytest.mark.parametrize("place", PLACES)
def test_every_place_for_credentials_is_looked_at(
    shared_server: RunningServer, clients: Clients, transport: str, place: str
) -> None:
    user = f"{transport}-{list(PLACES).index(place)}"
    connection = clients.open(shared_server.url, **TRANSPORTS[transport], **PLACES[place](user, mint(user)))
    [answer] = connection.wait("auth_success").args
    assert answer["userId"] == user
    if transport == "default":
        assert connection.wait("upgrade").args == ["websocket"]
    assert shared_server.broadcast([user], {"title": place}).json()["totalSockets"] == 1
    notification, offset = connection.wait("notification").args
    assert notification == {"title": place}
    assert isinstance(offset, str)
    assert offset.isdecimal()


@pytest.mark.parametrize("why", REFUSALS)
def test_a_refused_client_hears_why_and_stays_away(
    strict_server: RunningServer, clients: Clients, transport: str, why: str
) -> None:
    code, message, credentials = REFUSALS[why]
    connection = clients.open(strict_server.url, **TRANSPORTS[transport], **credentials())
    assert_sent_away(connection, code, message)
    assert not connection.all("auth_success")


def test_a_refusal_in_the_middle_of_the_upgrade_is_heard(
    shared_server: RunningServer, own_clients: Clients, node: str
) -> None:
    with latency(node, shared_server.port, 40) as port:
        connections = [own_clients.open(f"http://127.0.0.1:{port}") for _ in range(25)]
        connections[0].wait("connect")
        for connection in connections:
            connection.emit("auth", {"userId": "123"})
            time.sleep(0.004)  # one after the other, so that the refusals meet every step of the upgrade
        for connection in connections:
            assert_sent_away(connection, "missing_credentials", "Not authenticated - missing credentials")


def test_a_token_that_expires_ends_its_connection(strict_server: RunningServer, clients: Clients) -> None:
    connections = [
        clients.open(strict_server.url, **options, auth={"token": mint(f"user-{transport}", lifetime_s=2)})
        for transport, options in TRANSPORTS.items()
    ]
    for connection in connections:
        connection.wait("auth_success")
    for connection in connections:
        assert_sent_away(connection, "expired_token", "Invalid or expired JWT")
    assert strict_server.stats()["totalConnections"] == 0


def test_a_token_is_refreshed_in_time_by_the_auth_event(strict_server: RunningServer, clients: Clients) -> None:
    connections = {}
    for transport, options in TRANSPORTS.items():
        user = f"user-{transport}"
        connections[user] = clients.open(strict_server.url, **options, auth={"token": mint(user, lifetime_s=2)})
        before = connections[user].wait("auth_success").args[0]["expiresAt"]
        connections[user].emit("auth", {"userId": user, "jwt": mint(user, lifetime_s=3)})
        assert connections[user].wait("auth_success", 2).args[0]["expiresAt"] > before
    wait_for(lambda: time.time() > before + 0.1)
    assert strict_server.broadcast(list(connections), {"title": "still here"}).json()["totalSockets"] == 3
    for connection in connections.values():
        connection.wait("notification")
        assert_sent_away(connection, "expired_token", "Invalid or expired JWT")


def test_an_authenticated_connection_cannot_become_another_user(
    strict_server: RunningServer, clients: Clients, transport: str
) -> None:
    connection = clients.open(strict_server.url, **TRANSPORTS[transport], auth={"token": mint("123")})
    connection.wait("auth_success")
    connection.emit("auth", {"userId": "456", "jwt": mint("456")})
    assert_sent_away(connection, "user_mismatch", "UserId does not match JWT")


def test_the_oldest_connection_gives_way_to_the_newest(
    strict_server: RunningServer, clients: Clients, transport: str
) -> None:
    connections = []
    user = f"crowded-{transport}"
    for _ in range(3):
        connection = clients.open(strict_server.url, **TRANSPORTS[transport], auth={"token": mint(user)})
        connection.wait("auth_success")
        connections.append(connection)
    assert_sent_away(connections[0], "too_many_connections", "Too many connections")
    assert strict_server.broadcast([user], {"title": "hello"}).json()["totalSockets"] == 2
    for connection in connections[1:]:
        connection.wait("notification")
        assert not connection.all("disconnect")
    assert not connections[0].all("notification")


def test_a_client_survives_an_identity_provider_that_is_away(tmp_path: Path, clients: Clients, transport: str) -> None:
    with contextlib.closing(Provider()) as provider:
        provider.publish(one="RS256")
        provider.status = 503
        with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=provider.url) as server:
            connection = clients.open(
                server.url, **TRANSPORTS[transport], auth={"token": signed("RS256", kid="one")}, reconnectionDelay=100
            )
            gone = connection.wait("disconnect")
            assert gone.args != ["io server disconnect"]  # after which the official client would not reconnect by itself
            provider.status = 200
            assert connection.wait("auth_success").args[0]["userId"] == "123"
            assert not connection.all("auth_error")
