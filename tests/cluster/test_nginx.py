"""Several nodes behind the shipped nginx configuration: routing of sessions, and a node that does not answer."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.clients.official import TRANSPORTS, Script
from tests.cluster.fleet import NODES, Fleet, running_fleet
from tests.nginx import running_nginx
from tests.servers import API_KEY, mint, wait_for

pytestmark = pytest.mark.filterwarnings("ignore:Unverified HTTPS request")


@pytest.fixture(scope="module")
def fleet(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tool("redis-server"), tool("nginx"), tmp_path_factory.mktemp("fleet"), DRAIN_SECONDS=2) as started:
        yield started


@pytest.fixture
def crowd(node: str, fleet: Fleet) -> Iterator[Callable[..., Script]]:
    """Open official clients through nginx, all from one address; return their script once all are authenticated."""
    scripts: list[Script] = []

    def open_all(transport: str, count: int) -> Script:
        scripts.append(Script(node, "away.mjs"))
        clients = [
            {
                "name": f"{transport}-{number}",
                "options": {**TRANSPORTS[transport], "auth": {"token": mint(f"{transport}-{number}")}},
            }
            for number in range(count)
        ]
        scripts[-1].write({"command": "open", "url": fleet.url, "clients": clients})
        scripts[-1].line(event="all authenticated")
        return scripts[-1]

    yield open_all
    for each in scripts:
        each.stop()


def of_nodes(fleet: Fleet) -> dict[str, int]:
    """Return how many connections each node has, by name."""
    nodes = requests.get(f"{fleet.url}/stats", timeout=10).json()["nodes"]
    return {each["node"].rpartition("-")[0]: each["totalConnections"] for each in nodes}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_clients_of_one_address_are_spread_over_all_nodes_and_stay_connected(
    fleet: Fleet, crowd: Callable[..., Script], transport: str
) -> None:
    wait_for(lambda: sum(of_nodes(fleet).values()) == 0, what="the end of the clients before")
    clients = crowd(transport, 24)
    counts = of_nodes(fleet)
    assert set(counts) == set(NODES)
    assert sum(counts.values()) == 24
    assert min(counts.values()) >= 3, counts
    users = [f"{transport}-{number}" for number in range(24)]
    for number in range(1, 6):
        answer = fleet.post(users, number).json()
        assert (answer["deliveredTo"], answer["totalSockets"]) == (24, 24)
    clients.write({"command": "expect", "number": 5})
    clients.line(event="all have")
    clients.write({"command": "dump"})
    journals = clients.line(event="journals")["journals"]
    for journal in journals.values():
        assert [number for number, _ in journal["received"]] == [1, 2, 3, 4, 5]
        assert [event[1] for event in journal["events"]] == ["connect", "auth_success"]
        assert journal["state"]["transport"][0] == ("polling" if transport == "polling" else "websocket")


def test_a_session_of_an_unknown_node_is_refused_by_the_server_itself(fleet: Fleet) -> None:
    for sid in ("nobody~abc", "node1~abc", "127.0.0.1:6379~abc", "~"):
        answer = requests.get(
            f"{fleet.url}/socket.io/", params={"EIO": "4", "transport": "polling", "sid": sid}, timeout=10
        )
        assert (answer.status_code, answer.json()["message"]) == (400, "Session ID unknown")


def test_while_redis_does_not_answer_posts_are_503_and_health_checks_close_no_connection(fleet: Fleet) -> None:
    fleet.redis.kill()
    try:
        health = lambda: requests.get(f"{fleet.url}/health", timeout=10)  # noqa: E731
        wait_for(lambda: health().status_code == 503, what="unhealthy nodes")
        for number in range(6):
            assert health().json()["status"] == "unhealthy"
            assert fleet.post(["ada"], number, key=f"away-{number}").status_code == 503
            assert fleet.post(["ada"], number).status_code == 503
            answer = requests.get(f"{fleet.url}/socket.io/?EIO=4&transport=polling", timeout=10)
            assert answer.status_code == 200
    finally:
        fleet.redis.start()
    wait_for(lambda: health().ok, what="health")
    assert fleet.post(["ada"], 7).ok


def test_a_node_that_drains_is_passed_over(fleet: Fleet) -> None:
    leaving = fleet.nodes[0]
    stop = threading.Thread(target=leaving.restart)
    stop.start()
    try:
        number = 100
        while stop.is_alive():
            number += 1
            assert requests.get(f"{fleet.url}/health", timeout=10).json()["status"] == "healthy"
            assert requests.get(f"{fleet.url}/socket.io/?EIO=4&transport=polling", timeout=10).ok
            assert fleet.post(["leo"], number).status_code == 200
            assert fleet.post(["leo"], -number, key=f"{number}").status_code == 200
            time.sleep(0.02)
    finally:
        stop.join()
    assert sorted(fleet.kept("leo")) == sorted(each * sign for each in range(101, number + 1) for sign in (1, -1))


def test_a_node_that_is_gone_is_passed_over(fleet: Fleet) -> None:
    gone = fleet.nodes[1]
    gone.kill()
    try:
        wait_for(lambda: not gone.healthy(), what="the end of it")
        assert fleet.post(["gil"], 0, key="gil-0").status_code == 200
        for number in range(1, 30):
            assert requests.get(f"{fleet.url}/health", timeout=10).ok
            assert requests.get(f"{fleet.url}/socket.io/?EIO=4&transport=polling", timeout=10).ok
            assert fleet.post(["gil"], number).status_code == 200
    finally:
        gone.start()
    assert fleet.kept("gil") == list(range(30))


class Broken:
    """What has the port of a node, takes requests and does not answer them. how: "ends", "hangs"."""

    def __init__(self, how: str) -> None:
        self.requests: list[bytes] = []
        self._how = how
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._hanging: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.requests.append(client.recv(65_536))
                if self._how == "hangs":
                    self._hanging.append(client)
                else:
                    client.close()

    def end(self) -> None:
        for each in (self._listener, *self._hanging):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.fixture(params=["ends", "hangs"])
def broken(
    request: pytest.FixtureRequest, fleet: Fleet, tool: Callable[[str], str], tmp_path: Path
) -> Iterator[tuple[Broken, Fleet]]:
    """A node that takes requests and does not answer, beside two that do, behind an nginx of their own."""
    node = Broken(request.param)
    ports = [node.port, fleet.nodes[1].port, fleet.nodes[2].port]
    # Each node is used again, also the one that has just failed, and no request waits for a minute.
    changes = {
        "max_fails=1 fail_timeout=2s": "max_fails=0",
        "proxy_read_timeout 10s": "proxy_read_timeout 300ms",
        "proxy_connect_timeout 2s;": "proxy_connect_timeout 2s; proxy_read_timeout 300ms;",
    }
    with running_nginx(tool("nginx"), tmp_path, ports, changes) as nginx:
        yield node, Fleet(fleet.redis, fleet.nodes, nginx)
    node.end()


def test_a_post_with_a_key_is_sent_again_and_delivered_once(broken: tuple[Broken, Fleet]) -> None:
    node, fleet = broken
    user = f"keyed-{node.port}"
    for number in range(12):
        assert fleet.post([user], number, key=f"{user}-{number}").status_code == 200
    assert len([each for each in node.requests if b"POST /broadcast" in each]) >= 2
    assert fleet.kept(user) == list(range(12))


def test_a_post_without_a_key_is_never_sent_twice(broken: tuple[Broken, Fleet]) -> None:
    node, fleet = broken
    user = f"bare-{node.port}"
    statuses = {number: fleet.post([user], number).status_code for number in range(12)}
    failed = [number for number, status in statuses.items() if status != 200]
    assert len(failed) >= 2
    assert {statuses[number] for number in failed} <= {502, 504}
    assert len([each for each in node.requests if b"POST /broadcast" in each]) == len(failed)
    assert fleet.kept(user) == [number for number in range(12) if number not in failed]


def test_a_large_post_with_a_key_is_sent_again_whole(broken: tuple[Broken, Fleet]) -> None:
    _, fleet = broken
    for number in range(4):
        body = {"userIds": ["large"], "notification": {"data": {"n": number, "x": "x" * 900_000}}, "ttl": 0}
        answer = requests.post(
            f"{fleet.url}/broadcast",
            json=body,
            headers={"Authorization": f"Bearer {API_KEY}", "Idempotency-Key": f"large-{fleet.nginx.plain}-{number}"},
            timeout=10,
        )
        assert answer.status_code == 200


def test_a_body_above_the_limit_is_a_413_of_the_same_shape_with_a_key_too(fleet: Fleet) -> None:
    headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json", "Idempotency-Key": "much"}
    answer = requests.post(f"{fleet.url}/broadcast", data=b"x" * 1_048_577, headers=headers, timeout=10)
    assert answer.status_code == 413
    assert set(answer.json()) == {"error", "message"}
