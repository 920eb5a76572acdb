"""Three nodes as one server: whatever befalls a node, Redis or the way between them, of what was answered 200 nothing is
lost, doubled or out of order on any connection, and every node counts the same.

trial.py runs the same for as long as you like.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.clients.crash import Trial, online
from tests.cluster.nodes import Cluster
from tests.cluster.trial import USERS, trial
from tests.redis_servers import DURABLE, RunningRedis
from tests.servers import API_KEY, RunningServer, wait_for

SEEDS = itertools.count(20_240_101)  # one a trial: idempotency keys are used once
KEY = {"Authorization": f"Bearer {API_KEY}"}

SOME = 60  # number of users, if the test does not depend on it

# Contract, section 7.
FORGOTTEN_S = 15.0
WHOLE_AGAIN_S = 5.0


@pytest.fixture(scope="module")
def cluster(node: str, tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes on a Redis that keeps what it was told."""
    directory = tmp_path_factory.mktemp("cluster")
    with contextlib.ExitStack() as stack:
        server = RunningRedis(tool("redis-server"), directory, *DURABLE)
        stack.callback(server.kill)
        yield stack.enter_context(Cluster(node, server, directory, DRAIN_SECONDS=1))


@contextlib.contextmanager
def sound_trial(node: str, cluster: Cluster, *transports: str, users: int = USERS, seconds: float = 1.0) -> Iterator[Trial]:
    """Run a trial, and fail unless all is well in the end."""
    seed = next(SEEDS)
    with trial(node, cluster, seed, transports or ("websocket",), seconds, users) as running:
        yield running
        counts = running.finish()
    print(f"seed={seed} {counts}")
    assert counts.sound, "\n".join([str(counts), *counts.faults])
    assert counts.answered > 30


def test_all_connections_of_a_user_see_the_same_order_on_whichever_nodes_they_are(node: str, cluster: Cluster) -> None:
    with sound_trial(node, cluster, seconds=3.0) as running:
        running.hit("nothing")


def test_the_clients_of_a_killed_node_go_to_the_others_and_it_is_forgotten(node: str, cluster: Cluster) -> None:
    with sound_trial(node, cluster, users=SOME):
        time.sleep(0.5)
        cluster.nodes[0].die()
        died = time.monotonic()
        others = cluster.nodes[1:]
        wait_for(lambda: all(_known(each.server) == 2 for each in others), FORGOTTEN_S, "a dead node to be forgotten")
        print(f"forgotten after {time.monotonic() - died:.1f} s")
        wait_for(lambda: [online(each.server) for each in others] == [(SOME, 2 * SOME)] * 2, 5, "its clients elsewhere")
        cluster.nodes[0].start_again()


@pytest.mark.parametrize("ways", [("stop", "cut-off", "redis-stop"), ("restart",)], ids=", ".join)
def test_nothing_is_lost(node: str, cluster: Cluster, ways: tuple[str, ...]) -> None:
    with sound_trial(node, cluster, "websocket", "default", "polling", users=SOME, seconds=1.5) as running:
        for way in ways:
            running.hit(way)
        time.sleep(0.5)


def test_redis_is_killed_for_five_seconds_and_comes_back(node: str, cluster: Cluster) -> None:
    with sound_trial(node, cluster, users=SOME) as running:
        time.sleep(1)
        cluster.redis.kill()
        gone = time.monotonic()
        for each in cluster.nodes:
            server = each.server
            health = wait_for(lambda server=server: _unhealthy(server), what="an unhealthy node")
            assert set(health["checks"]) == {"inbox", "registry", "feed"}
            assert "cannot be reached: start it" in health["checks"]["inbox"]
            assert health["stats"]["totalConnections"] > 0  # its own: they stay
            assert server.get("/health/live").status_code == 200
            assert server.get("/stats").status_code == 503
            refusal = server.broadcast(["user-1"], {"title": "lost, and said to be"})
            assert refusal.status_code == 503
            assert refusal.headers["Retry-After"] == "1"
        time.sleep(max(0.0, gone + 5 - time.monotonic()))
        cluster.redis.start()
        back = time.monotonic()
        for each in cluster.nodes:
            wait_for(lambda server=each.server: server.get("/health").ok, WHOLE_AGAIN_S, "a healthy node")
            assert online(each.server) == (SOME, 2 * SOME)
        print(f"whole again {time.monotonic() - back:.1f} s after the return of Redis")
        assert time.monotonic() < back + WHOLE_AGAIN_S
        time.sleep(1)
    assert running.counts.reconnections == 0  # connections do not break


def _known(server: RunningServer) -> int:
    return len(server.stats()["nodes"])


def _unhealthy(server: RunningServer) -> dict[str, Any] | None:
    answer = server.get("/health", headers=KEY)
    body: dict[str, Any] = answer.json()
    return body if answer.status_code == 503 and body["status"] == "unhealthy" else None
