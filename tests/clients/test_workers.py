"""Several workers on one port, and the official client: no sticky sessions, whichever transport it takes."""

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.clients.official import TRANSPORTS, Clients, Script
from tests.servers import mint
from tests.workers import COUNT, several_workers, worker_of

# Transports of each hundred: the default ones (polling, then the upgrade), or polling alone.
HUNDREDS = ("", "", "", "", "", "polling")


def test_hundreds_of_clients_connect_without_one_error_and_each_receives(
    tmp_path: Path, tool: Callable[[str], str], node: str
) -> None:
    crowds: list[tuple[Script, list[str]]] = []
    with several_workers(tmp_path, tool) as server, ExitStack() as stack:
        for number, transport in enumerate(HUNDREDS):
            users = [f"user-{number}-{each}" for each in range(100)]
            crowd = Script(node, "crowd.mjs", server.url, transport)
            stack.callback(crowd.stop)
            crowds.append((crowd, users))
            crowd.write({user: mint(user) for user in users})
            crowd.line(event="all authenticated", timeout_s=60)
            if transport != "polling":
                crowd.line(event="all upgraded", timeout_s=30)
        everyone = [user for _, users in crowds for user in users]
        server.wait_for_connections(len(everyone))
        assert server.broadcast(everyone, {"title": "one"}).json()["totalSockets"] == len(everyone)
        for crowd, users in crowds:
            assert crowd.line(event="all received", timeout_s=30)["value"] == dict.fromkeys(users, 1)
            assert [line for line in crowd.lines if line["event"] == "trouble"] == []
        held = [each["totalConnections"] for each in server.stats()["nodes"]]
        assert len(held) == COUNT
        assert max(held) < 0.7 * len(everyone), held


def test_clients_of_a_killed_worker_come_back_and_miss_nothing(
    tmp_path: Path, tool: Callable[[str], str], own_clients: Clients
) -> None:
    with several_workers(tmp_path, tool) as server:
        users = [f"user-{number}" for number in range(24)]
        kinds = [*TRANSPORTS.values()] * 8
        connections = [
            own_clients.open(server.url, **options, reconnectionDelay=50, auth={"token": mint(user)})
            for user, options in zip(users, kinds, strict=True)
        ]
        for connection in connections:
            connection.wait("auth_success")
        server.broadcast(users, {"n": 1})
        for connection in connections:
            connection.wait("notification")
        server.session.close()  # its connection may be the killed one's
        os.kill(worker_of(server, connections[0].wait("connect").args[2]), signal.SIGKILL)
        for number in (2, 3, 4):
            assert server.broadcast(users, {"n": number}).status_code == 200
        for connection in connections:
            connection.wait("notification", 4)
            assert [each.args[0]["n"] for each in connection.all("notification")] == [1, 2, 3, 4]
        assert len(connections[0].all("connect")) > 1
        server.wait_for_log(" ready ", COUNT + 1)
