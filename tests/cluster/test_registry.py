"""The connections of all nodes: each node counts them, one limit covers them, and the counts recover after a loss."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from socket_server.cluster.registry import CROWDED_OUT, REPLACED, SIGNED_OUT, ClusterStats, LocalRegistry
from socket_server.errors import ClusterUnavailable
from socket_server.redis_access.keys import DEFAULT_KEYS
from socket_server.sessions import SessionManager, Stats
from socket_server.transport.engineio.gate import CROWDED, Request
from tests.cluster.conftest import Nodes
from tests.redis_servers import RunningRedis
from tests.servers import wait_for
from tests.unit.fakes import connection

HANDSHAKE = Request("GET", "websocket", None, "4")


# Counts


def test_every_node_counts_what_all_of_them_have(make_node: Nodes) -> None:
    one, two, three = (make_node(name).start() for name in "abc")
    one.connect("ada")
    gone, _ = two.connect("ada")
    two.connect("bob")
    for node in (one, two, three):
        assert node.counts == (2, 3)
        assert {each.node: each.stats for each in node.registry.stats().nodes} == {
            "a": Stats(1, 1),
            "b": Stats(2, 2),
            "c": Stats(0, 0),
        }
        assert node.say("ada", "bob", "eve")[:2] == (2, 3)
    two.sessions.remove(gone)
    wait_for(lambda: three.counts == (2, 2), what="the end of a connection")
    assert three.say("ada")[:2] == (1, 1)


def test_where_a_user_is_online(make_node: Nodes) -> None:
    one, two = make_node("a").start(), make_node("b").start()
    first, _ = one.connect("אדה")
    second, _ = two.connect("אדה")
    for node in (one, two):
        listed = node.registry.connections_of("אדה")
        assert [(each.sid, each.node) for each in listed] == [(first.sid, "a"), (second.sid, "b")]
        assert [each.since for each in listed] == pytest.approx([time.time()] * 2, abs=5)
        assert listed[0].to_json() == {
            "sid": first.sid,
            "node": "a",
            "since": listed[0].since,
            "transport": "websocket",
            "address": "127.0.0.1",
            "userAgent": "a test",
        }
        assert node.registry.connections_of("nobody") == []


def test_a_server_that_is_one_node_answers_alike() -> None:
    sessions = SessionManager(20)
    registry = LocalRegistry(sessions, "alone")
    ended = []
    registry.start(lambda each, why: ended.append((each.sid, why)))
    made, _ = connection()
    sessions.add("ada", made)
    registry.wait_until_visible(made)
    registry.check()
    assert registry.stats() == ClusterStats(Stats(1, 1))
    assert "nodes" not in registry.stats().to_json()
    assert [(each.sid, each.node) for each in registry.connections_of("ada")] == [(made.sid, "alone")]
    assert registry.sign_out("ada") == 1
    assert ended == [(made.sid, SIGNED_OUT)]


# One user, several nodes


def test_a_client_that_came_back_elsewhere_is_counted_once(make_node: Nodes) -> None:
    one, two = make_node("a").start(), make_node("b").start()
    old, _ = one.connect("ada", "pid.1")
    two.connect("ada", "pid.1")
    assert two.counts == (1, 1)
    wait_for(lambda: one.ended == [(old.sid, REPLACED)], what="the end of the half-open connection")
    assert two.ended == []


def test_the_newer_connection_of_a_client_stays_though_the_older_is_heard_of_later(make_node: Nodes) -> None:
    one, two = make_node("a"), make_node("b").start()
    old, _ = connection()
    old.pid = "pid.1"
    one.sessions.add("ada", old)
    time.sleep(0.2)  # more than the way to Redis takes, by which an age is off
    new, _ = two.connect("ada", "pid.1")
    one.start()
    wait_for(lambda: one.ended == [(old.sid, REPLACED)], what="the end of the half-open connection")
    assert [each.sid for each in two.registry.connections_of("ada")] == [new.sid]
    assert two.ended == []


def test_of_too_many_connections_the_oldest_goes_on_whichever_node_it_is(make_node: Nodes) -> None:
    one, two = (make_node(name, max_per_user=2).start() for name in "ab")
    oldest, _ = one.connect("ada")
    kept = [two.connect("ada")[0].sid, one.connect("ada")[0].sid]
    wait_for(lambda: one.ended == [(oldest.sid, CROWDED_OUT)], what="the end of the oldest")
    assert [each.sid for each in two.registry.connections_of("ada")] == kept
    assert two.ended == []


def test_an_old_connection_that_is_reported_late_evicts_no_other(make_node: Nodes) -> None:
    one, two = (make_node(name, max_per_user=2) for name in "ab")
    old, _ = connection()
    one.sessions.add("ada", old)
    two.start()
    time.sleep(0.2)
    kept = [two.connect("ada")[0].sid, two.connect("ada")[0].sid]
    one.start()
    wait_for(lambda: one.ended == [(old.sid, CROWDED_OUT)], what="the end of the oldest")
    assert [each.sid for each in two.registry.connections_of("ada")] == kept
    assert two.ended == []


def test_a_user_is_signed_out_of_all_nodes(make_node: Nodes) -> None:
    one, two, three = (make_node(name).start() for name in "abc")
    at_one, at_two = one.connect("ada")[0], two.connect("ada")[0]
    two.connect("bob")
    assert three.registry.sign_out("ada") == 2
    assert three.counts == (1, 1)
    wait_for(lambda: (one.ended, two.ended) == ([(at_one.sid, SIGNED_OUT)], [(at_two.sid, SIGNED_OUT)]), what="the ends")
    assert three.registry.sign_out("ada") == 0


def test_who_has_signed_in_again_stays_however_late_its_node_hears_of_the_signing_out(make_node: Nodes) -> None:
    one, two = make_node("a").start(), make_node("b").start(feed=False)
    signed_out = [two.connect(user)[0].sid for user in ("ada", "bob")]
    one.registry.sign_out("ada")
    time.sleep(0.2)  # more than the way to Redis takes, by which an age is off
    two.connect("ada")
    one.registry.sign_out("bob")
    two.feed.start(two.broadcaster, None)
    wait_for(lambda: len(two.ended) >= 2 and two.ended[-1][0] == signed_out[1], what="the end of the last to be signed out")
    assert two.ended == [(sid, SIGNED_OUT) for sid in signed_out]


def test_a_node_that_was_forgotten_signs_out_whom_it_missed(make_node: Nodes, brief_leases: float) -> None:
    one, two = make_node("a").start(), make_node("b").start()
    signed_out, _ = one.connect("ada")
    one.network.drop()
    wait_for(lambda: two.names == {"b"}, what="a node to be forgotten")
    two.registry.sign_out("ada")
    time.sleep(0.2)  # more than the way to Redis takes, by which an age is off
    again, _ = one.connect("ada")
    one.network.restore()
    wait_for(lambda: two.names == {"a", "b"} and two.counts == (1, 1), what="the node")
    wait_for(lambda: one.ended == [(signed_out.sid, SIGNED_OUT)], what="the end of a connection")
    assert [each.sid for each in two.registry.connections_of("ada")] == [again.sid]


# Nodes that go, and come again


def test_a_dead_node_is_forgotten_with_all_its_connections(
    make_node: Nodes, brief_leases: float, redis_server: RunningRedis
) -> None:
    one, two = make_node("a", max_per_address=5).start(), make_node("b").start()
    for number in range(600):  # more than one step forgets
        one.sessions.add(f"user {number}", connection()[0])
    one.addresses.opened("192.0.2.1")
    two.connect("user 1")
    wait_for(lambda: two.counts == (600, 601), what="all connections")
    one.network.drop()
    started = time.monotonic()
    wait_for(lambda: two.counts == (1, 1), what="the end of a node")
    assert time.monotonic() - started < brief_leases + 0.4 + 1
    assert two.names == {"b"}
    assert two.say("user 1", "user 2")[:2] == (1, 1)
    assert not redis_server.client.keys(DEFAULT_KEYS.prefix + "*:a")


def test_a_node_that_stops_is_forgotten_at_once(make_node: Nodes, redis_server: RunningRedis) -> None:
    one, two = make_node("a").start(), make_node("b").start()
    one.connect("ada")
    one.stop()
    assert two.counts == (0, 0)
    assert two.names == {"b"}


def test_a_node_whose_lease_ran_out_makes_everything_known_again(make_node: Nodes, brief_leases: float) -> None:
    one, two = make_node("a", max_per_address=1).start(), make_node("b", max_per_address=1).start()
    one.connect("ada")
    one.addresses.opened("192.0.2.1")
    two.addresses.opened("192.0.2.2")
    wait_for(
        lambda: one.addresses.count("192.0.2.2") == 1 and two.addresses.count("192.0.2.1") == 1, what="each other's counts"
    )
    one.network.drop()
    wait_for(lambda: two.names == {"b"} and not two.addresses.count("192.0.2.1"), what="a node to be forgotten")
    two.addresses.closed("192.0.2.2")
    two.addresses.opened("192.0.2.3")
    one.connect("bob")
    one.network.restore()
    wait_for(lambda: two.counts == (2, 2), what="the connections of the node")
    wait_for(lambda: two.addresses.count("192.0.2.1") == 1, what="its addresses")
    wait_for(lambda: one.addresses.count("192.0.2.3") == 1, what="the addresses of the others")
    assert one.addresses.count("192.0.2.2") == 0


@pytest.mark.usefixtures("brief_leases")
def test_while_redis_stands_still_no_node_dies(make_node: Nodes, redis_server: RunningRedis) -> None:
    one, two, three = (make_node(name).start() for name in "abc")
    for node in (one, two, three):
        node.connect("ada")
    for pause_s in (1.7, 2.5):  # some leases are over then, or all
        redis_server.stop()
        time.sleep(pause_s)
        redis_server.resume()
        ends = time.monotonic() + 1.0
        while time.monotonic() < ends:
            assert redis_server.client.zcard(DEFAULT_KEYS.nodes) == 3
            assert redis_server.client.hlen(DEFAULT_KEYS.connections_of("ada")) == 3
            time.sleep(0.02)
    assert one.counts == (1, 3)


def test_without_redis_connections_are_accepted_and_not_counted(make_node: Nodes) -> None:
    one, two = make_node("a").start(), make_node("b").start()
    one.network.drop()
    wait_for(lambda: not one.in_touch, what="the trouble")
    started = time.monotonic()
    one.connect("ada")
    for call in (one.registry.stats, lambda: one.registry.sign_out("ada"), lambda: one.registry.connections_of("ada")):
        with pytest.raises(ClusterUnavailable, match="cannot be reached: start it"):
            call()
    assert time.monotonic() - started < 1
    one.network.restore()
    wait_for(lambda: two.counts == (1, 1), what="the connections made without Redis")


# What Redis loses


def _flush(server: RunningRedis) -> None:
    server.client.flushall()


def _lose_nodes(server: RunningRedis) -> None:
    server.client.delete(DEFAULT_KEYS.nodes)


def _lose_connections_of_a_node(server: RunningRedis) -> None:
    server.client.delete(DEFAULT_KEYS.node("a"))


@pytest.mark.usefixtures("brief_leases")
@pytest.mark.parametrize("lose", [_flush, _lose_nodes, _lose_connections_of_a_node])
def test_what_redis_has_lost_is_said_again(
    make_node: Nodes, redis_server: RunningRedis, lose: Callable[[RunningRedis], None]
) -> None:
    one, two = make_node("a").start(), make_node("b").start()
    one.connect("ada")
    one.connect("bob")
    two.connect("ada")
    lose(redis_server)
    wait_for(lambda: one.counts == (2, 3) and two.names == {"a", "b"}, what="the right counts")
    assert two.say("ada", "bob")[:2] == (2, 3)


@pytest.mark.usefixtures("brief_leases")
def test_a_redis_that_goes_back_in_time_is_told_what_is_now(make_node: Nodes, redis_server: RunningRedis) -> None:
    """As a replica that was promoted before it had everything, or after a crash with appendfsync everysec."""
    one, two = make_node("a").start(), make_node("b").start()
    left, _ = one.connect("ada")
    two.connect("bob")
    before = {key: redis_server.client.dump(key) for key in redis_server.client.keys(DEFAULT_KEYS.prefix + "*")}
    one.sessions.remove(left)
    came, _ = one.connect("eve")
    with redis_server.client.pipeline() as transaction:
        transaction.flushall()
        for key, value in before.items():
            transaction.restore(key, 0, value)
        transaction.execute()
    wait_for(lambda: [each.sid for each in two.registry.connections_of("eve")] == [came.sid], what="the new connection")
    wait_for(lambda: not two.registry.connections_of("ada"), what="the end of the old one")
    assert two.counts == (2, 2)
    assert two.say("ada", "bob", "eve")[:2] == (2, 2)


# What is limited by address


def test_failed_authentications_count_on_all_nodes(make_node: Nodes) -> None:
    one, two = make_node("a").start(), make_node("b").start()
    for _ in range(150):
        one.addresses.failed("192.0.2.1")
        two.addresses.failed("192.0.2.1")
    environ = {"REMOTE_ADDR": "192.0.2.1"}
    for node in (one, two):
        wait_for(lambda node=node: node.gate.judge(HANDSHAKE, environ, 0), what="a refusal")
        assert node.gate.judge(HANDSHAKE, {"REMOTE_ADDR": "192.0.2.2"}, 0) is None


def test_connections_of_an_address_count_on_all_nodes(make_node: Nodes) -> None:
    one, two = (make_node(name, max_per_address=2).start() for name in "ab")
    environ = {"REMOTE_ADDR": "192.0.2.1"}
    one.addresses.opened("192.0.2.1")
    assert two.gate.judge(HANDSHAKE, environ, 0) is None
    two.addresses.opened("192.0.2.1")
    for node in (one, two, make_node("late", max_per_address=2).start()):
        wait_for(lambda node=node: node.gate.judge(HANDSHAKE, environ, 0) is CROWDED, what="a refusal")
    one.addresses.closed("192.0.2.1")
    for node in (one, two):
        wait_for(lambda node=node: node.gate.judge(HANDSHAKE, environ, 0) is None, what="a place")


# What it costs


def test_a_storm_of_connections_costs_few_calls(make_node: Nodes, redis_server: RunningRedis) -> None:
    one = make_node("a").start()
    redis_server.client.config_resetstat()
    storm = [connection()[0] for _ in range(1_000)]
    for each in storm:
        one.sessions.add(each.sid, each)
    wait_for(lambda: one.counts == (1_000, 1_000), what="all of them")
    asked = redis_server.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    redis_server.client.config_resetstat()
    for each in storm:
        one.sessions.remove(each)
    wait_for(lambda: one.counts == (0, 0), what="the end of all of them")
    print(f"calls for 1,000 connections: {asked}")
    assert asked < 60  # with those of the test that waits


def test_strangers_that_come_and_go_cost_few_calls(make_node: Nodes, redis_server: RunningRedis) -> None:
    one = make_node("a", max_per_address=2).start()
    redis_server.client.config_resetstat()
    ends = time.monotonic() + 1
    while time.monotonic() < ends:
        one.addresses.opened("192.0.2.1")
        one.addresses.closed("192.0.2.1")
        time.sleep(0.001)
    asked = redis_server.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    print(f"calls in a second: {asked}")
    assert asked < 30


def test_however_many_addresses_there_are_redis_is_told_a_few_at_a_time(
    make_node: Nodes, redis_server: RunningRedis
) -> None:
    one = make_node("a", max_per_address=2).start()
    for number in range(5_000):
        one.addresses.opened(f"192.0.{number // 250}.{number % 250}")
    known = DEFAULT_KEYS.addresses("a")
    wait_for(lambda: redis_server.client.hlen(known) == 5_000, what="all of them")
    redis_server.client.config_resetstat()
    redis_server.client.flushall()
    wait_for(lambda: redis_server.client.hlen(known) == 5_000, what="all of them, once more")
    assert redis_server.client.info("commandstats")["cmdstat_evalsha"]["calls"] >= 20


def test_however_many_ask_for_the_counts_redis_is_asked_by_one_at_a_time(
    make_node: Nodes, redis_server: RunningRedis
) -> None:
    one, two = make_node("a").start(), make_node("b").start()
    redis_server.client.config_resetstat()
    redis_server.stop()
    with ThreadPoolExecutor(50) as pool:
        counts = [pool.submit(lambda: one.counts) for _ in range(50)]
        wait_for(lambda: counts[-1].running(), what="all of them")
        redis_server.resume()
        assert {each.result() for each in counts} == {(0, 0)}
    two.connect("ada")
    assert one.counts == (1, 1)
    assert redis_server.client.info("commandstats")["cmdstat_evalsha"]["calls"] < 20
