"""Connections that are lost: the official client reconnects by itself and receives again."""

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.clients.official import TRANSPORTS, Clients, Connection, latency
from tests.servers import RunningServer, free_port, mint, running, wait_for

# Reasons of the official client for a lost transport. It reconnects after each of them.
LOSSES = {"transport close", "transport error", "ping timeout"}


def open_every_way(clients: Clients, url: str) -> list[Connection]:
    """Open connections of user 123 over each transport, authenticated in the handshake and by the event `auth`."""
    connections = []
    for transport, options in TRANSPORTS.items():
        pair = [
            clients.open(url, **options, auth={"token": mint("123")}),
            clients.open(url, **options, login={"userId": "123", "jwt": mint("123")}),
        ]
        for connection in pair:
            connection.wait("auth_success")
            if transport == "default":
                connection.wait("upgrade")
        connections += pair
    return connections


def assert_receive(server: RunningServer, connections: Iterable[Connection], title: str) -> None:
    """Assert that these connections receive a notification, and no others do."""
    connections = list(connections)
    assert server.broadcast(["123"], {"title": title}).json()["totalSockets"] == len(connections)
    for connection in connections:
        wait_for(lambda c=connection: {"title": title} in [each.args[0] for each in c.all("notification")], what=title)


def assert_lost(connection: Connection, reasons: set[str]) -> None:
    """Assert that the client lost its transport and is going to reconnect."""
    lost = connection.wait("disconnect")
    assert lost.args[0] in reasons
    assert lost.active


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "kill -9"])
def test_clients_reconnect_to_a_restarted_server(tmp_path: Path, own_clients: Clients, sig: signal.Signals) -> None:
    port = free_port()
    with running(tmp_path, PORT=port) as server:
        connections = open_every_way(own_clients, server.url)
        assert_receive(server, connections, "before")
        if sig == signal.SIGTERM:
            assert server.stop() == 0
        else:
            os.killpg(server.process.pid, sig)
            server.process.wait()
        for connection in connections:
            assert_lost(connection, {"transport close"} if sig == signal.SIGTERM else LOSSES)
            connection.wait("connect_error")  # it tries while no server is there
    with running(tmp_path, PORT=port) as server:
        for connection in connections:
            connection.wait("auth_success", 2)
        assert_receive(server, connections, "after")
        for connection in connections:
            assert [each.args[0]["title"] for each in connection.all("notification")] == ["before", "after"]
            assert len(connection.all("disconnect")) == 1
            assert not connection.all("auth_error")


def test_a_client_in_the_middle_of_its_upgrade_survives_a_restart(tmp_path: Path, own_clients: Clients, node: str) -> None:
    """During its upgrade the client has stopped polling: it must not wait for a WebSocket that has ended."""
    port = free_port()
    with latency(node, port, 20) as far_port:
        with running(tmp_path, PORT=port) as server:
            connections = []
            for _ in range(20):
                connections.append(own_clients.open(f"http://127.0.0.1:{far_port}", auth={"token": mint("123")}))
                time.sleep(0.01)  # so that the signal arrives at every step of the upgrade
            connections[9].wait("connect")
            assert server.stop() == 0
        with running(tmp_path, PORT=port) as server:
            server.wait_for_connections(len(connections), 10)
            assert_receive(server, connections, "after")


def test_clients_that_are_busy_for_longer_than_the_ping_timeout_are_closed_and_reconnect(
    tmp_path: Path, own_clients: Clients
) -> None:
    with running(tmp_path, PING_INTERVAL=0.5, PING_TIMEOUT=1.5) as server:
        connections = open_every_way(own_clients, server.url)
        # Idle, and at times busy for less than the timeout.
        for number in range(1, 5):
            own_clients.block(0.6)
            connections[0].ask("ping")
            connections[0].wait("ack", number)
        assert_receive(server, connections, "still connected")
        assert not any(connection.all("disconnect") for connection in connections)
        own_clients.block(4.0)
        wait_for(lambda: server.stats()["totalConnections"] == 0, 3.8, "the end of the silent connections")
        for connection in connections:
            assert_lost(connection, LOSSES)
            connection.wait("auth_success", 2)
        server.wait_for_connections(len(connections))
        assert_receive(server, connections, "reconnected")


def test_clients_that_read_nothing_are_closed_and_others_are_not(
    tmp_path: Path, own_clients: Clients, clients: Clients
) -> None:
    with running(tmp_path, SEND_BACKLOG_BYTES=262_144) as server:
        stalled = open_every_way(own_clients, server.url)
        others = open_every_way(clients, server.url)
        own_clients.script.process.send_signal(signal.SIGSTOP)
        try:
            sent = 0
            while server.stats()["totalConnections"] > len(others):
                assert sent < 500, "the stalled connections were not closed"
                sent += 1
                server.broadcast(["123"], {"data": {"number": sent, "text": "x" * 100_000}})
                for connection in others:
                    connection.wait("notification", sent)
            assert not any(connection.all("disconnect") for connection in others)
        finally:
            own_clients.script.process.send_signal(signal.SIGCONT)
        for connection in stalled:
            assert_lost(connection, LOSSES)
            connection.wait("auth_success", 2)
        server.wait_for_connections(len(stalled) + len(others))
        assert_receive(server, stalled + others, "reconnected")
        for connection in stalled:
            numbers = [each.args[0].get("data", {"number": sent + 1})["number"] for each in connection.all("notification")]
            assert numbers == sorted(set(numbers))
