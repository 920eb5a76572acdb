"""Several servers in one Redis database, each with a prefix of its own; and what callers without a key learn of Redis."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from tests.integration.protocol import client
from tests.redis_servers import RunningRedis
from tests.servers import mint, running, wait_for


def test_servers_with_other_prefixes_know_nothing_of_each_other(tmp_path: Path, redis_server: RunningRedis) -> None:
    with contextlib.ExitStack() as stack:
        servers = []
        for name in ("{staging}:", "{production}:"):
            folder = tmp_path / name.strip("{}:")
            folder.mkdir()
            settings = {"REDIS_URL": redis_server.url, "REDIS_PREFIX": name, "INBOX_URL": ""}
            servers.append(stack.enter_context(running(folder, **settings)))
        staging, production = servers
        here, there = (stack.enter_context(client(server)) for server in servers)
        for connection in (here, there):
            connection.sign_in({"token": mint("ada")})
        answer = staging.broadcast(["ada"], {"title": "staging"}).json()
        assert (answer["deliveredTo"], answer["totalSockets"]) == (1, 1)
        assert here.event()[1] == {"title": "staging"}
        production.broadcast(["ada"], {"title": "production"})
        assert there.event()[1] == {"title": "production"}
        wait_for(lambda: staging.stats()["totalConnections"] == 1, what="the count of one server")
        assert len(staging.stats()["nodes"]) == 1
        keys = [key.decode() for key in redis_server.client.keys("*")]
        assert {key.partition(":")[0] for key in keys} == {"{staging}", "{production}"}


def test_stats_without_a_key_do_not_name_redis_when_they_fail(tmp_path: Path, tool: Callable[[str], str]) -> None:
    own_redis = RunningRedis(tool("redis-server"), tmp_path)
    try:
        with running(tmp_path, REDIS_URL=own_redis.url, INBOX_URL="") as server:
            wait_for(lambda: server.get("/stats").ok, what="the registry")
            own_redis.kill()
            wait_for(lambda: server.get("/stats").status_code == 503, what="its failure")
            assert str(own_redis.port) not in server.get("/stats").text
            assert str(own_redis.port) in server.get("/stats", headers=server.api_headers).text
    finally:
        own_redis.client.close()
        own_redis.kill()
