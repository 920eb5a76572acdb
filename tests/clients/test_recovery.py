"""What a client misses while it is away reaches it when it comes back, whatever parted it from its server (contract, 6)."""

import contextlib
import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import socketio

from tests.clients.official import TRANSPORTS, Clients, Connection, Network, latency
from tests.clients.test_delivery import LATENCY_MS, WEBSOCKET_LATENCY_MS, BackEnds
from tests.integration.protocol import RawWebSocket, client
from tests.servers import BIN, PRODUCTION, SECRET, RunningServer, free_port, mint, running, start, wait_for

OTHER_SECRET = "another-secret-that-is-long-enough-0123456789"

# The packages of tests/clients/package.json; the second group recovers without the application's help.
WITHOUT_PID = {"3.1": "socket.io-client-3.1", "4.0": "socket.io-client-4.0"}
WITH_PID = {"4.6": "socket.io-client-4.6", "newest": "socket.io-client"}


def send(server: RunningServer, users: list[str], *titles: str) -> list[str]:
    """Broadcast notifications and return their offsets."""
    return [server.broadcast(users, {"title": title}).json()["id"] for title in titles]


def titles(connection: Connection) -> list[str]:
    return [each.args[0]["title"] for each in connection.all("notification")]


def assert_has(connection: Connection, *wanted: str) -> None:
    """It has received these since it was opened: all of them, in this order, each once, and nothing else."""
    wait_for(lambda: len(titles(connection)) >= len(wanted), what=f"{wanted} (now {titles(connection)})")
    assert titles(connection) == list(wanted)
    offsets = [int(each.args[1]) for each in connection.all("notification")]
    assert offsets == sorted(set(offsets))


def success(connection: Connection, number: int = 1) -> dict[str, Any]:
    """Return what auth_success said that time."""
    payload: dict[str, Any] = connection.wait("auth_success", number).args[0]
    return payload


def assert_recovered(connection: Connection, replayed: int, number: int = 2) -> None:
    """The stock client says so, the server says so, and the replay came between auth_success and anything live."""
    answer = success(connection, number)
    assert (answer["recovered"], answer["replayed"]) == (True, replayed)
    assert connection.wait("connect", number).args[1] is True
    history = [each for each in connection.history if each.event in ("connect", "auth_success", "notification")]
    at = [index for index, each in enumerate(history) if each.event == "connect"][number - 1]
    assert history[at + 1].event == "auth_success"
    for missed in history[at + 2 : at + 2 + replayed]:
        assert int(missed.args[1]) <= int(answer["lastId"])


def settle(connection: Connection, transport: str, number: int = 1) -> None:
    """Wait until it is authenticated, that time, and has the transport that it stays with.

    What is cut before may take its time: a client that loses its WebSocket while its polling pauses for the upgrade
    learns of it only from the heartbeat.
    """
    connection.wait("auth_success", number)
    if transport == "default":
        connection.wait("upgrade", number)


def settle_all(connections: list[Connection], number: int = 1) -> None:
    """The same for one connection over each transport, or several times that."""
    for connection, transport in zip(connections, itertools.cycle(TRANSPORTS), strict=False):
        settle(connection, transport, number)


def end(server: RunningServer, sig: signal.Signals) -> None:
    """Stop it as a user does, or kill every process of it at once."""
    if sig == signal.SIGKILL:
        os.killpg(server.process.pid, sig)
        server.process.wait()
    else:
        assert server.stop(sig) == 0


@pytest.fixture
def network(shared_server: RunningServer) -> Iterator[Network]:
    with Network(shared_server.port) as between:
        yield between


# The stock client, with nothing in the application but io(url, {auth})


def test_a_stock_client_recovers_after_its_connection_drops(
    shared_server: RunningServer, clients: Clients, network: Network, transport: str
) -> None:
    user = f"drop-{transport}"
    connection = clients.open(network.url, **TRANSPORTS[transport], auth={"token": mint(user)})
    settle(connection, transport)
    send(shared_server, [user], "1")
    assert_has(connection, "1")
    network.drop()
    connection.wait("disconnect")
    *_, last = send(shared_server, [user], "2", "3", "4")
    network.restore()
    assert_recovered(connection, replayed=3)
    assert success(connection, 2)["lastId"] == last
    assert shared_server.broadcast([user], {"title": "5"}).json()["totalSockets"] == 1
    assert_has(connection, "1", "2", "3", "4", "5")
    # And once more, with nothing missed.
    settle(connection, transport, 2)
    network.drop()
    connection.wait("disconnect", 2)
    network.restore()
    assert_recovered(connection, replayed=0, number=3)
    send(shared_server, [user], "6")
    assert_has(connection, "1", "2", "3", "4", "5", "6")


def test_a_stock_client_recovers_after_its_server_was_stopped_and_after_it_was_killed(
    tmp_path: Path, own_clients: Clients
) -> None:
    """Also what was answered 200 right before the end, be it written to a connection that was dead already."""
    port = free_port()
    with Network(port) as network, Network(port) as lost_network, contextlib.ExitStack() as last:
        server = last.enter_context(running(tmp_path, PORT=port))
        connections = [
            own_clients.open(each.url, **options, auth={"token": mint("123")})
            for each in (network, lost_network)
            for options in TRANSPORTS.values()
        ]
        settle_all(connections)
        send(server, ["123"], "0")
        sent = ["0"]
        for number, sig in enumerate((signal.SIGTERM, signal.SIGKILL), 1):
            settle_all(connections, number)
            for connection in connections:
                assert_has(connection, *sent)
            lost_network.strand()
            answer = server.broadcast(["123"], {"title": f"{sig.name} 1"}).json()
            assert answer["totalSockets"] == len(connections)
            end(server, sig)
            for connection in connections:
                assert connection.wait("disconnect", number).active
            network.drop()  # so that they miss more: they would be back before anything could be sent
            had = [len(titles(connection)) for connection in connections]
            assert had[3:] == [len(sent)] * 3
            server = last.enter_context(running(tmp_path, PORT=port))
            send(server, ["123"], f"{sig.name} 2", f"{sig.name} 3")
            sent += [f"{sig.name} {each}" for each in (1, 2, 3)]
            network.restore()
            lost_network.restore()
            for connection, before in zip(connections, had, strict=True):
                assert_recovered(connection, replayed=len(sent) - before, number=number + 1)
            send(server, ["123"], f"{sig.name} 4")
            sent += [f"{sig.name} 4"]
        for connection in connections:
            assert_has(connection, *sent)


# Cases in which the recovery of Socket.IO's own server fails


def test_a_half_open_connection_loses_nothing(tmp_path: Path, own_clients: Clients) -> None:
    """Every client's network goes and comes back before the server noticed: to it they are still connected."""
    with running(tmp_path) as server, Network(server.port) as network:
        connections = [
            own_clients.open(network.url, **options, auth={"token": mint(user)}) for user, options in TRANSPORTS.items()
        ]
        settle_all(connections)
        send(server, list(TRANSPORTS), "1")
        for connection in connections:
            assert_has(connection, "1")
        network.strand()
        assert server.broadcast(list(TRANSPORTS), {"title": "2"}).json()["totalSockets"] == 3
        for connection in connections:
            connection.wait("disconnect")
        network.restore()
        for connection in connections:
            assert_recovered(connection, replayed=1)
        assert server.stats() == {"connectedUsers": 3, "totalConnections": 3, "averageConnectionsPerUser": 1}
        assert server.broadcast(list(TRANSPORTS), {"title": "3"}).json()["totalSockets"] == 3
        for connection in connections:
            assert_has(connection, "1", "2", "3")
        own_clients.close_all()
        server.wait_for_connections(0)


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_a_half_open_connection_is_closed_when_its_client_is_back(shared_server: RunningServer, transport: str) -> None:
    user = f"half-open-{transport}"
    with client(shared_server, transport) as old, client(shared_server) as new, client(shared_server) as other:
        pid = old.connect({"token": mint(user)})["pid"]
        offset = old.success()["lastId"]
        other.sign_in({"token": mint(user)})  # another tab of the same user: it stays
        assert new.connect({"token": mint(user), "pid": pid, "offset": offset})["pid"] == pid
        assert new.success()["recovered"] is True
        assert shared_server.broadcast([user], {"title": "1"}).json()["totalSockets"] == 2
        assert old.receive() is None
        for each in (new, other):
            assert each.event()[:2] == ["notification", {"title": "1"}]


def test_the_pid_of_another_user_closes_no_connection(shared_server: RunningServer) -> None:
    with client(shared_server) as owner, client(shared_server) as thief:
        pid = owner.connect({"token": mint("owner")})["pid"]
        owner.success()
        offset = send(shared_server, ["owner"], "for the owner")[0]
        thief.sign_in({"token": mint("thief"), "pid": pid, "offset": str(int(offset) - 1)})
        thief.pong()  # nothing else has come
        owner.event()
        owner.pong()


def test_a_client_that_reconnects_before_its_first_notification_misses_nothing(
    shared_server: RunningServer, clients: Clients, network: Network, transport: str
) -> None:
    """It has no offset to send yet: its pid says where it started."""
    user = f"first-{transport}"
    send(shared_server, [user], "before its time")
    connection = clients.open(network.url, **TRANSPORTS[transport], auth={"token": mint(user)})
    settle(connection, transport)
    for number in (2, 3):  # its pid still says so after a reconnection that brought nothing
        network.drop()
        connection.wait("disconnect", number - 1)
        if number == 3:
            send(shared_server, [user], "1", "2", "3")
        network.restore()
        assert_recovered(connection, replayed=3 if number == 3 else 0, number=number)
        settle(connection, transport, number)
    assert_has(connection, "1", "2", "3")


CHATTY = """
from wsgi import app

@app.post("/shout")
def shout():
    app.extensions["socketio"].emit("shout", "an argument that is a string")
    app.extensions["socketio"].emit("nothing but a name")
    return "done"
"""


def test_an_event_that_ends_in_a_string_is_not_taken_for_an_offset(tmp_path: Path, own_clients: Clients) -> None:
    """The stock client remembers the last string of any event; those that an application adds to the server count too."""
    (tmp_path / "chatty.py").write_text(CHATTY)
    port = free_port()
    command = [str(BIN / "gunicorn"), "--pythonpath", str(tmp_path), "chatty:app"]
    settings = {"HOST": "127.0.0.1", "PORT": port, "DRAIN_SECONDS": 0, "INBOX_URL": f"sqlite:///{tmp_path}/inbox.db"}
    server = start(tmp_path / "server.log", command, port, **PRODUCTION, **settings)
    try:
        with Network(port) as network:
            connections = [
                own_clients.open(network.url, **options, auth={"token": mint("123")}) for options in TRANSPORTS.values()
            ]
            settle_all(connections)
            send(server, ["123"], "1")
            for connection in connections:
                assert_has(connection, "1")
                connection.emit("ping")
                connection.ask("ping")
                connection.wait("ack")
            assert server.post("/shout").ok
            for connection in connections:
                connection.wait("pong", 2)
                connection.wait("shout")
                connection.wait("nothing but a name")
            network.drop()
            send(server, ["123"], "2", "3")
            for connection in connections:
                connection.wait("disconnect")
            network.restore()
            for connection in connections:
                assert_recovered(connection, replayed=2)
                assert_has(connection, "1", "2", "3")
        assert "Traceback" not in server.log(), server.log()
    finally:
        server.stop()
        server.session.close()


def test_a_client_whose_token_is_no_longer_good_when_it_is_back_is_told_nothing(
    tmp_path: Path, own_clients: Clients
) -> None:
    """It expired (here: the leeway that it lived on is gone) or its secret was rotated out, while the client was away."""
    port = free_port()
    tokens = {"expired_token": mint("123", secret=OTHER_SECRET, lifetime_s=-30), "invalid_token": mint("123")}
    connections: dict[Connection, str] = {}
    with Network(port) as network:
        with running(tmp_path, PORT=port, JWT_SECRET=f"{OTHER_SECRET},{SECRET}", JWT_LEEWAY=3600) as server:
            for transport, options in TRANSPORTS.items():
                for code, token in tokens.items():
                    connection = own_clients.open(network.url, **options, auth={"token": token})
                    connections[connection] = code
                    settle(connection, transport)
            network.drop()
            send(server, ["123"], "a secret")
            for connection in connections:
                connection.wait("disconnect")
        with running(tmp_path, PORT=port, JWT_SECRET=OTHER_SECRET, JWT_LEEWAY=0) as server:
            network.restore()
            for connection, code in connections.items():
                assert connection.wait("auth_error").args[0]["code"] == code
                assert connection.wait("disconnect", 2).args == ["io server disconnect"]
                assert not connection.history[-1].active
                assert not connection.all("notification")
            assert b"a secret" not in network.carried  # no byte of what it missed has left the server
            assert server.stats()["totalConnections"] == 0


# What an attacker with another user's pid and offset sends beside them.
NOT_GOOD_ENOUGH: dict[str, Callable[[], str | None]] = {
    "expired_token": lambda: mint("victim", lifetime_s=-60),
    "invalid_token": lambda: mint("victim", secret=OTHER_SECRET),
    "invalid_format": lambda: "not-a-token",
    "missing_credentials": lambda: None,
}


@pytest.mark.parametrize("code", NOT_GOOD_ENOUGH)
def test_a_pid_is_no_credential(shared_server: RunningServer, code: str) -> None:
    """Nothing is sent before the new verification, and the connection that has the pid stays open."""
    with client(shared_server) as owner, RawWebSocket(shared_server.port) as stranger:
        pid = owner.connect({"token": mint("victim")})["pid"]
        offset = owner.success()["lastId"]
        send(shared_server, ["victim"], "a secret")
        assert stranger.text().startswith("0{")
        stranger.send("40" + json.dumps({"token": NOT_GOOD_ENOUGH[code](), "pid": pid, "offset": offset}))
        if code == "missing_credentials":
            stranger.send('42["auth",{}]')
        *frames, _ = [payload.decode(errors="replace") for _, payload in iter(stranger.frame, None)]
        connected, refused, disconnected, *others = frames
        assert set(json.loads(connected.removeprefix("40"))) == {"sid", "pid"}
        assert json.loads(refused.removeprefix("42"))[1]["code"] == code
        assert disconnected == "41"
        assert others in ([], ["1"])  # the polite end of the transport
        assert owner.event()[:2] == ["notification", {"title": "a secret"}]
        owner.pong()


# Versions of the client


@pytest.fixture(scope="module", params=[*WITHOUT_PID, *WITH_PID])
def version(node: str, request: pytest.FixtureRequest) -> Iterator[Clients]:
    started = Clients(node, (WITHOUT_PID | WITH_PID)[request.param])
    yield started
    started.stop()


def test_every_client_version_receives_and_recovers_by_its_last_id(
    shared_server: RunningServer, version: Clients, network: Network, request: pytest.FixtureRequest
) -> None:
    """The application keeps the offset of the last notification, and says it in `auth` or in the event `auth`."""
    user = request.node.name
    ways: list[dict[str, Any]] = [{"auth": {"token": mint(user)}}, {"login": {"userId": user, "jwt": mint(user)}}]
    connections = [
        version.open(network.url, **options, **way, follow=True) for way in ways for options in TRANSPORTS.values()
    ]
    settle_all(connections)
    for number in (2, 3):  # the first time away nothing has come yet
        network.drop()
        for connection in connections:
            connection.wait("disconnect", number - 1)
        send(shared_server, [user], f"{number} missed", f"{number} missed too")
        network.restore()
        for connection in connections:
            answer = success(connection, number)
            assert (answer["recovered"], answer["replayed"]) == (True, 2)
        send(shared_server, [user], f"{number} live")
        for connection in connections:
            connection.wait("notification", 3 * (number - 1))
        settle_all(connections, number)
    for connection in connections:
        assert_has(connection, *(f"{number} {what}" for number in (2, 3) for what in ("missed", "missed too", "live")))
        connection.close()


@pytest.mark.parametrize("name", WITH_PID)
def test_every_client_version_with_recovery_recovers_by_its_pid(
    shared_server: RunningServer, node: str, network: Network, name: str
) -> None:
    clients = Clients(node, WITH_PID[name])
    try:
        connections = [
            clients.open(network.url, **options, auth={"token": mint(f"pid-{name}")}) for options in TRANSPORTS.values()
        ]
        settle_all(connections)
        for connection in connections:
            assert connection.wait("connect").args[1] is not True
        for number in (2, 3):
            network.drop()
            for connection in connections:
                connection.wait("disconnect", number - 1)
            send(shared_server, [f"pid-{name}"], f"{number}")
            network.restore()
            for connection in connections:
                assert_recovered(connection, replayed=1, number=number)
            settle_all(connections, number)
        for connection in connections:
            assert_has(connection, "2", "3")
    finally:
        clients.stop()


def test_the_python_client_receives_and_recovers_by_its_last_id(
    shared_server: RunningServer, network: Network, transport: str
) -> None:
    user = f"python-{transport}"
    successes: list[dict[str, Any]] = []
    received: list[tuple[str, str]] = []

    def credentials() -> dict[str, Any]:
        return {"token": mint(user), "lastId": received[-1][1] if received else None}

    python = socketio.Client(
        reconnection_delay=0.05,
        reconnection_delay_max=0.2,
        websocket_extra_options={"suppress_origin": True},  # it is no web page; the origin that it makes up is refused
    )
    python.on("auth_success", successes.append)
    python.on("notification", lambda notification, offset: received.append((notification["title"], offset)))
    python.connect(network.url, auth=credentials, **TRANSPORTS[transport])
    try:
        wait_for(lambda: successes, what="auth_success")
        offsets = send(shared_server, [user], "1")
        wait_for(lambda: received, what="the notification")
        network.drop()
        wait_for(lambda: not python.connected, what="the end of its connection")
        offsets += send(shared_server, [user], "2", "3")
        network.restore()
        wait_for(lambda: len(successes) == 2, what="its return")
        offsets += send(shared_server, [user], "4")
        wait_for(lambda: len(received) >= 4, what="all notifications")
        assert (successes[1]["recovered"], successes[1]["replayed"]) == (True, 2)
        assert received == list(zip("1234", offsets, strict=True))
    finally:
        python.shutdown()


# Reloaded pages


def place(where: str, user: str, **position: Any) -> dict[str, Any]:
    """Return how a page says who it is and where it was: for Clients.open."""
    if where == "handshake":
        return {"auth": {"token": mint(user), **position}}
    return {"login": {"userId": user, "jwt": mint(user), **position}}


PLACES = pytest.mark.parametrize("where", ["handshake", "auth event"])


@PLACES
def test_a_reloaded_page_gets_what_it_missed(
    shared_server: RunningServer, clients: Clients, transport: str, where: str
) -> None:
    user = f"reload-{where}-{transport}"
    page = clients.open(shared_server.url, **TRANSPORTS[transport], **place(where, user))
    settle(page, transport)
    send(shared_server, [user], "1")
    assert_has(page, "1")
    last_id = page.all("notification")[-1].args[1]
    page.close()
    page.wait("disconnect")
    send(shared_server, [user], "2", "3")
    reloaded = clients.open(shared_server.url, **TRANSPORTS[transport], **place(where, user, lastId=last_id))
    answer = success(reloaded)
    assert (answer["recovered"], answer["replayed"]) == (True, 2)
    assert reloaded.wait("connect").args[1] is not True  # to its client it is new: only auth_success knows better
    send(shared_server, [user], "4")
    assert_has(reloaded, "2", "3", "4")


@PLACES
def test_a_reloaded_page_that_reconnects_is_not_sent_again_what_it_has(
    shared_server: RunningServer, clients: Clients, network: Network, where: str
) -> None:
    """The lastId in a page's `auth` is frozen when the page loads; the client's own offset is newer."""
    user = f"frozen-{where}"
    last_id, *_ = send(shared_server, [user], "0", "1")
    page = clients.open(network.url, **place(where, user, lastId=last_id))
    settle(page, "default")
    send(shared_server, [user], "2")
    assert_has(page, "1", "2")
    network.drop()
    page.wait("disconnect")
    send(shared_server, [user], "3")
    network.restore()
    assert_recovered(page, replayed=1)
    assert_has(page, "1", "2", "3")


@PLACES
def test_a_last_id_that_is_none_or_lies_in_the_future_is_no_error(
    shared_server: RunningServer, clients: Clients, network: Network, where: str
) -> None:
    user = f"garbage-{where}"
    [head] = send(shared_server, [user], "before their time")
    garbage = ["", "abc", "-1", "1.5", "1e3", " 1", "٣", "9" * 40, -1, 1.5, 1e300, True, [], {"a": 1}]
    future = [str(int(head) + 10**12), int(head) + 10**12, "9" * 19]
    options = TRANSPORTS["websocket"]
    pages = [clients.open(network.url, **options, **place(where, user, lastId=each)) for each in garbage + future]
    for page in pages:
        answer = success(page)
        assert (answer["recovered"], answer["replayed"], answer["lastId"]) == (False, 0, head)
    # They have started all the same, and from now on miss nothing.
    network.drop()
    for page in pages:
        page.wait("disconnect")
    send(shared_server, [user], "1")
    network.restore()
    for page in pages:
        assert_recovered(page, replayed=1)
    send(shared_server, [user], "2")
    for page in pages:
        assert_has(page, "1", "2")
        assert not page.all("auth_error")
        assert not page.all("connect_error") or len(page.all("disconnect")) == 1
        page.close()


def test_a_pid_or_an_offset_that_is_none_is_no_error(shared_server: RunningServer) -> None:
    [head] = send(shared_server, ["forger"], "before their time")
    future = str(int(head) + 10**12)
    for position in (
        {"pid": "no pid of ours"},
        {"pid": 7},
        {"pid": "x" * 10_000 + ".1", "offset": None},
        {"pid": f"name.{future}"},
        {"pid": "name.1", "offset": "abc"},
        {"pid": "name.1", "offset": future},
        {"pid": f"name.{head}", "offset": {"a": 1}},
        {"pid": "no pid of ours", "offset": "no offset"},
        {"offset": head},
    ):
        with client(shared_server) as forger:
            answer = forger.sign_in({"token": mint("forger"), **position})
            assert (answer["recovered"], answer["replayed"], answer["lastId"]) == (False, 0, head), position
            forger.pong()


def test_a_new_client_starts_at_now(shared_server: RunningServer, clients: Clients, transport: str) -> None:
    user = f"new-{transport}"
    *_, head = send(shared_server, [user], "before its time", "and this")
    connection = clients.open(shared_server.url, **TRANSPORTS[transport], auth={"token": mint(user)})
    answer = success(connection)
    assert (answer["recovered"], answer["replayed"], answer["lastId"]) == (False, 0, head)
    assert connection.wait("connect").args[1] is not True
    send(shared_server, [user], "1")
    assert_has(connection, "1")


# Retention


def test_a_client_that_missed_more_than_its_inbox_holds_gets_what_is_left(tmp_path: Path, own_clients: Clients) -> None:
    with running(tmp_path, INBOX_MAX_PER_USER=3) as server, Network(server.port) as network:
        connections = [
            own_clients.open(network.url, **options, auth={"token": mint("123")}) for options in TRANSPORTS.values()
        ]
        settle_all(connections)
        send(server, ["123"], "1")
        for connection in connections:
            assert_has(connection, "1")
        network.drop()
        for connection in connections:
            connection.wait("disconnect")
        send(server, ["123"], "2", "3", "4")  # what it has received itself may go
        network.restore()
        for connection in connections:
            assert_recovered(connection, replayed=3)
            assert_has(connection, "1", "2", "3", "4")
        settle_all(connections, 2)
        network.drop()
        for connection in connections:
            connection.wait("disconnect", 2)
        send(server, ["123"], "5", "6", "7", "8")
        network.restore()
        for connection in connections:
            answer = success(connection, 3)
            assert (answer["recovered"], answer["replayed"]) == (False, 3)
            assert connection.wait("connect", 3).args[1] is True  # the client's own word is about the pid alone
        send(server, ["123"], "9")
        for connection in connections:
            assert_has(connection, "1", "2", "3", "4", "6", "7", "8", "9")


def test_a_client_that_was_away_for_longer_than_its_inbox_keeps_gets_what_is_left(
    tmp_path: Path, own_clients: Clients
) -> None:
    with running(tmp_path, INBOX_TTL=2) as server:
        seen, _, dropped = send(server, ["123"], "0", "1", "2")
        sent = time.time()
        wait_for(lambda: time.time() > sent + 2.01, what="the end of their time")
        send(server, ["123"], "3")
        late = own_clients.open(server.url, auth={"token": mint("123"), "lastId": seen})
        in_time = own_clients.open(server.url, auth={"token": mint("123"), "lastId": dropped})
        answer = success(late)
        assert (answer["recovered"], answer["replayed"]) == (False, 1)
        assert success(in_time)["replayed"] == 1
        send(server, ["123"], "4")
        for connection in (late, in_time):
            assert_has(connection, "3", "4")


def test_what_went_by_its_own_ttl_does_not_count_as_dropped(
    shared_server: RunningServer, clients: Clients, network: Network
) -> None:
    connection = clients.open(network.url, auth={"token": mint("ttl")})
    settle(connection, "default")
    send(shared_server, ["ttl"], "1")
    assert_has(connection, "1")
    network.drop()
    connection.wait("disconnect")
    fleeting = shared_server.post(
        "/broadcast",
        json={"userIds": ["ttl"], "notification": {"title": "for those who are here"}, "ttl": 0},
        headers={"Authorization": f"Bearer {shared_server.api_key}"},
    )
    assert fleeting.ok
    send(shared_server, ["ttl"], "2")
    network.restore()
    assert_recovered(connection, replayed=1)
    assert_has(connection, "1", "2")


# While much is sent


class Flood(BackEnds):
    def count(self) -> int:
        return len(self._sent)


def test_clients_that_reconnect_during_a_flood_get_each_notification_once_and_in_order(
    tmp_path: Path, own_clients: Clients, node: str
) -> None:
    """Cut again and again, also in the middle of a replay and of an upgrade, with back ends that never pause."""
    users = list(TRANSPORTS)
    with (
        # A client that is cut in the middle of its upgrade may wait for the heartbeat to tell it.
        running(tmp_path, INBOX_MAX_PER_USER=20_000, PING_INTERVAL=1, PING_TIMEOUT=4) as server,
        latency(node, server.port, LATENCY_MS, WEBSOCKET_LATENCY_MS) as slow_port,
        Network(slow_port) as network,
    ):
        connections = [own_clients.open(network.url, **TRANSPORTS[user], auth={"token": mint(user)}) for user in users]
        for connection in connections:
            success(connection)
        flood = Flood(server, users)
        cut = [network.strand, network.drop]
        for number, fail in enumerate(cut, 1):
            for connection in connections:
                # Right after the replay has begun; before, when it has not ended, or in the middle of the upgrade.
                connection.wait("notification", len(connection.all("notification")) + 1)
            fail()
            for connection in connections:
                connection.wait("disconnect", number)
            missed = flood.count() + 120  # more than a page of the replay
            wait_for(lambda least=missed: flood.count() > least, what="notifications that they miss")
            network.restore()
            for connection in connections:
                assert success(connection, number + 1)["replayed"] >= 120
        wait_for(lambda: connections[0].history[-1].transport == "websocket", what="the upgrade")
        sent = flood.stop()
        for connection in connections:
            wait_for(lambda c=connection: [n.args[1] for n in c.all("notification")[-1:]] == [str(sent[-1][0])])
        send(server, users, "the last")  # had anything been doubled, it would have come before this
        for connection in connections:
            wait_for(lambda c=connection: c.all("notification")[-1].args[0] == {"title": "the last"})
            *received, _ = [(int(offset), n.get("data")) for n, offset in (n.args for n in connection.all("notification"))]
            assert [(offset, data["number"]) for offset, data in received] == sent
            assert_recovered(connection, success(connection, len(cut) + 1)["replayed"], len(cut) + 1)
