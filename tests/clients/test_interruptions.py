"""The client loses its server, or the server its client: it comes back by itself and receives again."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.official import TRANSPORTS, Clients, Connection
from tests.servers import RunningServer, free_port, mint, running, wait_for

# What the official client says when its transport goes; it connects again after each of these.
LOSSES = {"transport close", "transport error", "ping timeout"}


@pytest.fixture(scope="module")
def impatient_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that soon gives up a silent client, or one for which too much is waiting."""
    with running(
        tmp_path_factory.mktemp("server"), PING_INTERVAL=0.4, PING_TIMEOUT=0.6, SEND_BACKLOG_BYTES=262_144
    ) as started:
        yield started


def open_both_ways(clients: Clients, url: str, transport: str) -> list[Connection]:
    """Two connections of user 123: one authenticates in the handshake, one by the event `auth` at every connect."""
    in_handshake = clients.open(url, **TRANSPORTS[transport], auth={"token": mint("123")})
    by_event = clients.open(url, **TRANSPORTS[transport], login={"userId": "123", "jwt": mint("123")})
    for connection in (in_handshake, by_event):
        connection.wait("auth_success")
        if transport == "default":
            connection.wait("upgrade")
    return [in_handshake, by_event]


def assert_receive(server: RunningServer, connections: list[Connection], title: str) -> None:
    assert server.broadcast(["123"], {"title": title}).json()["totalSockets"] == len(connections)
    for connection in connections:
        wait_for(
            lambda connection=connection: {"title": title} in [each.args[0] for each in connection.all("notification")]
        )


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "kill -9"])
def test_a_client_comes_back_to_a_restarted_server(
    tmp_path: Path, clients: Clients, transport: str, sig: signal.Signals
) -> None:
    port = free_port()
    with running(tmp_path, PORT=port) as server:
        connections = open_both_ways(clients, server.url, transport)
        assert_receive(server, connections, "before")
        if sig == signal.SIGTERM:
            assert server.stop() == 0
        else:
            os.killpg(server.process.pid, sig)
            server.process.wait()
        for connection in connections:
            lost = connection.wait("disconnect")
            assert lost.args[0] in ({"transport close"} if sig == signal.SIGTERM else LOSSES)
            assert lost.active
            connection.wait("connect_error")  # it tries, and nobody is there
    with running(tmp_path, PORT=port) as server:
        for connection in connections:
            connection.wait("auth_success", 2)
        assert_receive(server, connections, "after")
        for connection in connections:
            assert [each.args[0]["title"] for each in connection.all("notification")] == ["before", "after"]
            assert len(connection.all("disconnect")) == 1
            assert not connection.all("auth_error")


def test_a_client_that_is_busy_for_longer_than_the_ping_timeout_is_dropped_and_comes_back(
    impatient_server: RunningServer, clients: Clients, transport: str
) -> None:
    connections = open_both_ways(clients, impatient_server.url, transport)
    clients.block(2.5)
    wait_for(lambda: impatient_server.stats()["totalConnections"] == 0, 2.0, "the end of the silent connections")
    for connection in connections:
        lost = connection.wait("disconnect")
        assert lost.args[0] in LOSSES
        assert lost.active
        connection.wait("auth_success", 2)
    impatient_server.wait_for_connections(2)
    assert_receive(impatient_server, connections, "welcome back")
    for connection in connections:
        connection.close()
    impatient_server.wait_for_connections(0)


def test_a_client_that_stays_idle_is_kept(impatient_server: RunningServer, clients: Clients, transport: str) -> None:
    """Longer than interval and timeout together: the heartbeat of the two sides agrees."""
    connections = open_both_ways(clients, impatient_server.url, transport)
    for number in range(2, 8):
        connections[0].ask("ping")
        connections[0].wait("ack", number - 1)
        clients.block(0.3)  # busy, but not for too long
    assert_receive(impatient_server, connections, "still here")
    for connection in connections:
        assert not connection.all("disconnect")
        connection.close()
    impatient_server.wait_for_connections(0)


def test_a_client_that_reads_nothing_is_cut_while_others_go_on(
    tmp_path: Path, clients: Clients, node: str, transport: str
) -> None:
    with running(tmp_path, SEND_BACKLOG_BYTES=262_144) as server:
        stalled = clients.open(server.url, **TRANSPORTS[transport], auth={"token": mint("123")})
        stalled.wait("auth_success")
        if transport == "default":
            stalled.wait("upgrade")
        others = Clients(node)
        try:
            other = others.open(server.url, auth={"token": mint("123")})
            other.wait("auth_success")
            clients.script.process.send_signal(signal.SIGSTOP)
            sent = 0
            while server.stats()["totalConnections"] == 2:
                assert sent < 500, "the stalled connection was never cut"
                sent += 1
                server.broadcast(["123"], {"data": {"number": sent, "text": "x" * 100_000}})
            other.wait("notification", sent)
            assert not other.all("disconnect")
        finally:
            clients.script.process.send_signal(signal.SIGCONT)
            others.script.stop()
        lost = stalled.wait("disconnect")
        assert lost.args[0] in LOSSES
        assert lost.active
        stalled.wait("auth_success", 2)
        server.wait_for_connections(1)
        server.broadcast(["123"], {"data": {"number": sent + 1}})
        wait_for(
            lambda: (
                stalled.all("notification")[-1:] and stalled.all("notification")[-1].args[0]["data"]["number"] == sent + 1
            )
        )
        numbers = [each.args[0]["data"]["number"] for each in stalled.all("notification")]
        assert numbers == sorted(set(numbers))
