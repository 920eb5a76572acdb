"""Two nodes as one server, over HTTP and Socket.IO: what holds for both together, and what Redis may do to them."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.sentinel
import requests
import websocket

from socket_server.redis_access.client import TIMEOUT_S
from socket_server.redis_access.keys import DEFAULT_KEYS
from tests.cluster.nodes import Cluster
from tests.integration.protocol import TRANSPORTS, Client, client
from tests.redis_servers import RunningRedis
from tests.servers import API_KEY, RunningServer, free_port, mint, running, wait_for

KEY = {"Authorization": f"Bearer {API_KEY}"}
SETTINGS = {
    "PING_TIMEOUT": 60,  # these clients answer pings while they read
    "TRUSTED_PROXIES": "127.0.0.1",
    "MAX_CONNECTIONS_PER_USER": 3,
    "MAX_CONNECTIONS_PER_IP": 8,
    "MAX_AUTH_FAILURES_PER_MINUTE": 5,
}
WHOLE_AGAIN_S = 5.0


@pytest.fixture(scope="module")
def cluster(
    node: str, run_redis: Callable[..., RunningRedis], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    with Cluster(node, run_redis(), tmp_path_factory.mktemp("cluster"), 2, **SETTINGS) as started:
        yield started
        assert "Traceback" not in started.log(), started.log()


@pytest.fixture
def servers(cluster: Cluster) -> list[RunningServer]:
    """The nodes, without connections."""
    servers = [each.server for each in cluster.nodes]
    for each in servers:
        each.wait_for_connections(0)
    return servers


Connects = Callable[..., Client]


@pytest.fixture
def connects() -> Iterator[Connects]:
    """Sign a user in: `connects(server, user, **auth)`; its `greeting` is what auth_success said."""
    with contextlib.ExitStack() as stack:

        def connect(
            server: RunningServer, user: str, address: str = "127.0.0.1", transport: str = "websocket", **auth: Any
        ) -> Any:
            made: Any = stack.enter_context(client(server, transport, headers={"X-Forwarded-For": address}))
            made.reply = made.connect({"token": mint(user), **auth})
            made.greeting = made.success()
            return made

        yield connect


def is_down(servers: list[RunningServer], clients: list[Client], reason: str) -> None:
    """Broadcasts are refused with the reason; connections stay open."""
    for server in servers:
        health = wait_for(lambda server=server: _unhealthy(server), what="an unhealthy node")
        assert reason in health["checks"]["inbox"]
        refusal = server.broadcast(["ada"], {"title": "refused"})
        assert refusal.status_code == 503
        assert refusal.headers["Retry-After"] == "1"
        assert reason in refusal.json()["message"]
    for each in clients:
        each.pong()


def is_whole(servers: list[RunningServer], clients: list[Client]) -> None:
    """All is well, by itself and soon: a broadcast to any node is the next thing that each of ada's clients gets."""
    for server in servers:
        wait_for(lambda server=server: server.get("/health").ok, WHOLE_AGAIN_S, "a healthy node")
        server.wait_for_connections(len(clients), WHOLE_AGAIN_S)
    for server in servers:
        report = server.broadcast(["ada"], {"title": server.url}).json()
        assert (report["deliveredTo"], report["totalSockets"]) == (1, len(clients))
        for each in clients:
            assert each.event() == ["notification", {"title": server.url}, report["id"]]


def _unhealthy(server: RunningServer) -> dict[str, Any] | None:
    answer = server.get("/health", headers=KEY)
    return answer.json() if answer.status_code == 503 else None


# One server


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_broadcast_to_either_node_reaches_both(servers: list[RunningServer], connects: Connects, transport: str) -> None:
    is_whole(servers, [connects(server, "ada", transport=transport) for server in servers])


def test_stats_and_health_count_the_cluster_and_each_node(servers: list[RunningServer], connects: Connects) -> None:
    connects(servers[0], "ada")
    connects(servers[1], "ada")
    connects(servers[1], "bob")
    for server in servers:
        stats = server.stats()
        assert stats["connectedUsers"] == 2
        assert stats["totalConnections"] == 3
        assert stats["averageConnectionsPerUser"] == 1.5
        assert sorted((each["connectedUsers"], each["totalConnections"]) for each in stats["nodes"]) == [(1, 1), (2, 2)]
        assert {each["node"].rpartition("-")[0] for each in stats["nodes"]} == {"node-0", "node-1"}
        assert server.get("/health").json()["stats"] == stats


def test_a_client_goes_on_at_another_node_and_its_half_open_connection_ends(
    servers: list[RunningServer], connects: Connects
) -> None:
    old: Any = connects(servers[0], "ada")
    offsets = [server.broadcast(["ada"], {}).json()["id"] for server in servers]
    for offset in offsets:
        assert old.event() == ["notification", {}, offset]
    new: Any = connects(servers[1], "ada", pid=old.reply["pid"], offset=offsets[0])
    assert new.reply["pid"] == old.reply["pid"]
    assert new.greeting["recovered"] is True
    assert new.greeting["replayed"] == 1
    assert new.event() == ["notification", {}, offsets[1]]
    assert old.rest() == []
    assert old.closed_politely is False
    for server in servers:
        assert server.stats()["totalConnections"] == 1


def test_an_idempotency_key_used_on_both_nodes_at_once_is_one_notification(
    servers: list[RunningServer], connects: Connects
) -> None:
    clients = [connects(server, "ada") for server in servers]
    answers: list[requests.Response] = []
    for number in range(20):

        def post(server: RunningServer, number: int = number) -> None:
            headers = {**KEY, "Idempotency-Key": f"key-{number}"}
            body = {"userIds": ["ada", "nobody"], "notification": {"data": number}}
            answers.append(requests.post(f"{server.url}/broadcast", json=body, headers=headers, timeout=10))

        threads = [threading.Thread(target=post, args=(server,)) for server in servers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        first, second = answers[-2:]
        assert first.json() == second.json()
        assert (first.json()["deliveredTo"], first.json()["totalSockets"]) == (1, 2)
        for each in clients:
            assert each.event() == ["notification", {"data": number}, first.json()["id"]]
    for each in clients:
        each.pong()


def test_an_operator_sees_where_a_user_is_online_and_signs_it_out_everywhere(
    servers: list[RunningServer], connects: Connects
) -> None:
    clients = [connects(servers[0], "ada", "192.0.2.1"), connects(servers[1], "ada", "192.0.2.2", transport="polling")]
    for server in servers:
        listed = server.get("/users/ada/connections", headers=KEY).json()["connections"]
        assert [each["sid"] for each in listed] == [each.reply["sid"] for each in clients]
        assert [(each["address"], each["transport"]) for each in listed] == [
            ("192.0.2.1", "websocket"),
            ("192.0.2.2", "polling"),
        ]
    assert servers[0].get("/users/ada/connections").status_code == 401
    answer = requests.delete(f"{servers[0].url}/users/ada/connections", headers=KEY, timeout=10)
    assert answer.json() == {"success": True, "disconnected": 2}
    for each in clients:
        assert each.refusal() == ("Signed out", "signed_out")
    for server in servers:
        server.wait_for_connections(0)


# Limits


def test_a_users_oldest_connection_gives_way_on_whichever_node_it_is(
    servers: list[RunningServer], connects: Connects
) -> None:
    oldest, *kept = [connects(servers[number % 2], "ada") for number in range(4)]
    assert oldest.refusal() == ("Too many connections", "too_many_connections")
    is_whole(servers, kept)


def test_an_address_has_so_many_connections_over_all_nodes(servers: list[RunningServer], connects: Connects) -> None:
    opened = [connects(servers[number % 2], f"user-{number}", "192.0.2.3") for number in range(8)]
    for server in servers:
        wait_for(lambda server=server: _refused_at_the_gate(server, "192.0.2.3"), what="a refusal")
        assert not _refused_at_the_gate(server, "192.0.2.4")
    opened[0].close()
    for server in servers:
        wait_for(lambda server=server: not _refused_at_the_gate(server, "192.0.2.3"), what="a place")


def test_failed_authentications_of_an_address_count_over_all_nodes(servers: list[RunningServer]) -> None:
    for number in range(5):
        with client(servers[number % 2], headers={"X-Forwarded-For": "192.0.2.5"}) as stranger:
            stranger.connect({"token": mint("eve", secret="a-secret-of-another-server-0123456789")})
            assert stranger.refusal()[1] == "invalid_token"
    for server in servers:
        wait_for(lambda server=server: _refused_at_the_gate(server, "192.0.2.5"), what="a refusal")


def _refused_at_the_gate(server: RunningServer, address: str) -> bool:
    try:
        with client(server, headers={"X-Forwarded-For": address}):
            return False
    except websocket.WebSocketBadStatusException as error:
        return bool(error.status_code == 429)


# What Redis may do


def test_who_is_authenticated_has_time_though_redis_stands_still(
    run_redis: Callable[..., RunningRedis], connects: Connects, tmp_path: Path
) -> None:
    own = run_redis()
    with running(tmp_path, REDIS_URL=own.url, INBOX_URL="", AUTH_TIMEOUT=0.5) as server:
        server.wait_for_log("is in contact", 1)
        own.stop()
        try:
            waits = connects(server, "ada")
        finally:
            own.resume()
        is_whole([server], [waits])


def test_a_node_stops_in_time_though_redis_stands_still(run_redis: Callable[..., RunningRedis], tmp_path: Path) -> None:
    own = run_redis()
    with running(tmp_path, REDIS_URL=own.url, INBOX_URL="") as server:
        server.wait_for_log("is in contact", 1)
        own.stop()
        try:
            assert server.stop() == 0
        finally:
            own.resume()
        assert " info stopped" in server.log(), server.log()
        assert " error " not in server.log(), server.log()


def test_a_full_redis(servers: list[RunningServer], connects: Connects, cluster: Cluster) -> None:
    clients = [connects(server, "ada") for server in servers]
    cluster.redis.client.config_set("maxmemory", 1)
    try:
        is_down(servers, clients, "is full: raise its maxmemory, or lower INBOX_TTL or INBOX_MAX_PER_USER")
        clients.append(connects(servers[0], "ada"))
    finally:
        cluster.redis.client.config_set("maxmemory", 0)
    is_whole(servers, clients)


def test_a_redis_that_became_a_read_only_replica(
    servers: list[RunningServer], connects: Connects, cluster: Cluster
) -> None:
    clients = [connects(server, "ada") for server in servers]
    cluster.redis.client.replicaof("127.0.0.1", str(free_port()))
    try:
        is_down(servers, clients, "is a read-only replica: name the primary, or use redis+sentinel://")
    finally:
        cluster.redis.client.replicaof("NO", "ONE")
    is_whole(servers, clients)


def test_a_redis_that_does_not_answer(servers: list[RunningServer], connects: Connects, cluster: Cluster) -> None:
    clients = [connects(server, "ada") for server in servers]
    cluster.redis.stop()
    try:
        took_s: list[float] = []

        def unhealthy() -> dict[str, Any] | None:
            started = time.monotonic()
            found = _unhealthy(servers[0])
            took_s.append(time.monotonic() - started)
            return found

        health = wait_for(unhealthy, what="an unhealthy node")
        assert max(took_s) < TIMEOUT_S + 2
        assert "did not answer for 5 s" in health["checks"]["inbox"]
        clients[0].pong()
        refusal = servers[0].broadcast(["ada"], {"title": "refused"})
        assert refusal.status_code == 503
        assert "did not answer for 5 s" in refusal.json()["message"]
        clients[1].pong()
    finally:
        cluster.redis.resume()
    for each in clients:  # what Redis was asked it does when it goes on, and it is delivered, once
        assert each.event()[1] == {"title": "refused"}
    is_whole(servers, clients)


def test_a_flushed_redis_is_said_to_everybody_who_was_connected(
    servers: list[RunningServer], connects: Connects, cluster: Cluster
) -> None:
    clients = [connects(server, "ada") for server in servers]
    offset = servers[0].broadcast(["ada"], {}).json()["id"]
    for each in clients:
        assert each.event() == ["notification", {}, offset]
    cluster.redis.client.flushall()
    assert servers[0].broadcast(["ada"], {"title": "after"}).status_code == 200
    for each in clients:
        assert each.rest() == []  # its transport is closed: the official client comes back by itself
        assert each.closed_politely is False
    again: list[Any] = [
        connects(server, "ada", pid=each.reply["pid"], offset=offset) for server, each in zip(servers, clients, strict=True)
    ]
    for each in again:
        assert each.greeting["recovered"] is False
        assert each.greeting["replayed"] == 1
        assert each.event()[1] == {"title": "after"}
    is_whole(servers, again)


def test_a_failover_with_sentinel(
    node: str, run_redis: Callable[..., RunningRedis], connects: Connects, tmp_path: Any
) -> None:
    first = run_redis()
    second = run_redis("--replicaof", "127.0.0.1", str(first.port))
    (tmp_path / "sentinel.conf").write_text(
        f"sentinel monitor events 127.0.0.1 {first.port} 1\nsentinel down-after-milliseconds events 500\n"
        "sentinel failover-timeout events 3000\n"
    )
    sentinel = run_redis(str(tmp_path / "sentinel.conf"), "--sentinel")
    wait_for(lambda: second.client.info("replication").get("master_link_status") == "up", 30, "the replica")
    knows = redis.sentinel.Sentinel([("127.0.0.1", sentinel.port)])
    wait_for(lambda: knows.discover_slaves("events"), 30, "the Sentinel's knowledge")
    knows.sentinels[0].close()
    url = f"redis+sentinel://127.0.0.1:{sentinel.port}/events/0"
    with Cluster(node, first, tmp_path, 2, REDIS_URL=url) as own:
        servers = [each.server for each in own.nodes]
        clients: list[Any] = [connects(server, "ada") for server in servers]
        is_whole(servers, clients)
        newest = first.client.get(DEFAULT_KEYS.prefix + "head")
        wait_for(lambda: second.client.get(DEFAULT_KEYS.prefix + "head") == newest, what="the replica's copy")
        first.kill()
        is_down(servers, clients, "redis+sentinel://127.0.0.1")
        wait_for(lambda: all(server.get("/health").ok for server in servers), 40, "the new primary")
        is_whole(servers, clients)
        assert "Traceback" not in own.log()
