"""All nodes deliver one log, in one order: whichever node stored an entry, and whatever a node has missed."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from socket_server.errors import Unavailable
from socket_server.inbox.inbox import Entry
from socket_server.inbox.redis import store
from socket_server.redis_access.keys import DEFAULT_KEYS
from tests.cluster.conftest import Node, Nodes
from tests.redis_servers import RunningRedis
from tests.servers import wait_for
from tests.unit.fakes import RecordingSession


def offsets(session: RecordingSession) -> list[int]:
    return [int(event[-1]) for event in session.events]


def got(session: RecordingSession, expected: list[int]) -> None:
    """Fail unless these offsets, and no others, arrive in this order."""
    try:
        wait_for(lambda: len(session.packets) >= len(expected), what="what was broadcast")
    finally:
        assert offsets(session) == expected


def say(node: Node, *users: str) -> int:
    return node.say(*users)[2]


def refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except Unavailable:
        return True
    return False


# One order


def test_a_broadcast_to_any_node_reaches_the_connections_of_all(make_node: Nodes) -> None:
    nodes = [make_node(name).start() for name in "abc"]
    sessions = [node.connect("ada")[1] for node in nodes]
    said = []
    for node in nodes:
        said += [say(node, "ada"), say(node, "ada", "bob")]
        say(node, "bob")
    for session in sessions:
        got(session, said)


def test_however_many_publish_where_all_connections_see_one_order(make_node: Nodes) -> None:
    nodes = [make_node(name).start() for name in "abc"]
    sessions = [node.connect("ada")[1] for node in nodes for _ in range(2)]
    said: list[int] = []

    def publish(node: Node) -> None:
        said.extend(say(node, "ada", "bob") for _ in range(60))

    threads = [threading.Thread(target=publish, args=(node,)) for node in nodes for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 360
    for session in sessions:
        got(session, sorted(said))


def test_who_is_admitted_meanwhile_starts_somewhere_and_misses_nothing_from_there(make_node: Nodes) -> None:
    one, two = make_node("a").start(), make_node("b").start()
    said: list[int] = []
    ending = threading.Event()

    def publish() -> None:
        while not ending.is_set():
            said.append(say(one, "ada"))

    thread = threading.Thread(target=publish)
    thread.start()
    started: list[tuple[int, RecordingSession]] = []
    for _ in range(15):
        head = two.broadcaster.head
        _, session = two.connect("ada")
        started.append((head, session))
        time.sleep(0.01)
    ending.set()
    thread.join()
    said.append(say(one, "ada"))
    for head, session in started:
        wait_for(lambda session=session: offsets(session)[-1:] == said[-1:], what="the newest")
        seen = offsets(session)
        assert seen == said[said.index(seen[0]) :]
        assert seen[0] > head or head in said


# What a node has missed


def test_a_node_that_was_away_catches_up_in_order(make_node: Nodes) -> None:
    one, two = make_node("a").start(), make_node("b").start()
    _, session = one.connect("ada")
    said = [say(two, "ada")]
    got(session, said)
    one.network.drop()
    wait_for(lambda: refused(one.feed.check), what="the trouble")
    said += [say(two, "ada") for _ in range(2_500)]  # more than one read
    assert refused(lambda: say(one, "ada"))
    one.network.restore()
    wait_for(lambda: not refused(lambda: said.append(say(one, "ada"))), what="Redis")
    got(session, said)
    assert not session.closed


def test_a_publisher_on_a_node_that_is_far_behind_is_served_in_order(make_node: Nodes) -> None:
    one, two = make_node("a").start(), make_node("b")
    two.start(feed=False)
    _, session = two.connect("ada")
    said = [say(one, "ada") for _ in range(store._MAX_FOREIGN_ENTRIES * 2 + 10)]
    handed_out = two.inbox.append([Entry(("ada",), b"{}")], two.broadcaster.head)
    assert handed_out.more
    assert (len(handed_out.foreign_records), handed_out.outcomes) == (store._MAX_FOREIGN_ENTRIES, ())
    said.append(say(two, "ada"))
    got(session, said)
    said += [say(one, "ada") for _ in range(store._MAX_FOREIGN_ENTRIES + 1)]
    two.broadcaster.catch_up()
    got(session, said)


def test_what_the_log_does_not_hold_any_more_is_had_from_the_inbox(
    make_node: Nodes, redis_server: RunningRedis, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = make_node("a").start(), make_node("b").start()
    made, session = one.connect("ada")
    said = [say(two, "ada")]
    got(session, said)
    one.network.drop()
    wait_for(lambda: refused(one.feed.check), what="the trouble")
    for _ in range(5):
        say(two, "ada")
    redis_server.client.xtrim(DEFAULT_KEYS.log, maxlen=2, approximate=False)
    one.network.restore()
    wait_for(lambda: session.closures == ["recovers from its inbox"], what="the end of its transport")
    assert offsets(session) == said
    assert not one.sessions.has(made)
    _, again = one.connect("ada")
    got(again, [say(two, "ada")])


def test_after_a_flush_who_was_connected_comes_back_to_be_told(make_node: Nodes, redis_server: RunningRedis) -> None:
    one, two = make_node("a").start(), make_node("b").start()
    sessions = [node.connect("ada")[1] for node in (one, two)]
    first = say(one, "ada")
    for session in sessions:
        got(session, [first])
    redis_server.client.flushall()
    assert say(one, "ada") > first
    for session in sessions:
        wait_for(lambda session=session: session.closed, what="the end of its transport")
        assert offsets(session) == [first]
    assert not one.inbox.since("ada", first, None, 10, 1_000).complete


def test_an_append_whose_answer_is_lost_goes_out_once(make_node: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = make_node("a").start(), make_node("b").start()
    sessions = [node.connect("ada")[1] for node in (one, two)]
    run = two.inbox._append_connection.run

    def lose_the_answer(*arguments: Any) -> None:
        run(*arguments)
        raise ConnectionResetError

    with monkeypatch.context() as patch:
        patch.setattr(two.inbox._append_connection, "run", lose_the_answer)
        assert refused(lambda: say(two, "ada"))
    for session in sessions:
        wait_for(lambda session=session: session.packets, what="what was stored")
    said = [*offsets(sessions[0]), say(two, "ada"), say(one, "ada")]
    for session in sessions:
        got(session, said)


# A head that is not known yet


def test_a_node_that_started_without_redis_begins_when_it_is_there(make_node: Nodes) -> None:
    """Its clock is a minute ahead, which must not matter to anybody else."""
    one, two = make_node("a"), make_node("b").start()
    one.network.drop()
    one.start_blind(clock_us=round((time.time() + 60) * store.MICROSECONDS))
    _, session = one.connect("ada")
    assert refused(lambda: say(one, "ada"))
    first = say(two, "ada")
    one.network.restore()
    wait_for(lambda: one.in_touch, what="touch with the others")
    second = say(two, "ada")
    assert second < first + 30 * store.MICROSECONDS  # offsets are what they would be without that node
    wait_for(lambda: one.broadcaster.head == second, what="the log")
    assert session.closures == ["recovers from its inbox"]
    assert offsets(session) == []
    _, again = one.connect("ada")
    got(again, [say(one, "ada"), say(two, "ada")])


def test_nothing_is_stored_before_the_head_is_known(make_node: Nodes) -> None:
    one, two = make_node("a"), make_node("b").start()
    one.network.drop()
    one.start_blind(clock_us=round((time.time() + 60) * store.MICROSECONDS), feed=False)
    _, session = one.connect("ada")
    one.network.restore()
    say(two, "ada")
    assert refused(lambda: say(one, "ada"))  # it would go out behind a gap
    assert offsets(session) == []


def test_offsets_grow_beyond_all_that_a_node_has_delivered(make_node: Nodes, redis_server: RunningRedis) -> None:
    """A Redis whose newest writes are lost, asked by a node that has read but not written them."""
    one, two = make_node("a").start(), make_node("b").start()
    _, session = one.connect("ada")
    kept = say(two, "ada")
    head = redis_server.client.get(DEFAULT_KEYS.prefix + "head")
    lost = say(two, "ada")
    got(session, [kept, lost])
    redis_server.client.set(DEFAULT_KEYS.prefix + "head", head)
    redis_server.client.xdel(DEFAULT_KEYS.log, f"{lost}-0")
    redis_server.client.delete(f"{DEFAULT_KEYS.prefix}body:{lost}")
    redis_server.client.rpop(f"{DEFAULT_KEYS.prefix}user:ada")
    new = say(one, "ada")
    assert new > lost
    assert not one.inbox.since("ada", kept, None, 10, 1_000).complete
    assert offsets(session) == [kept, lost]
    assert session.closed  # its client comes back, and is told that it may have missed something


def test_who_has_got_what_redis_lost_is_told_though_others_go_on_before_it(
    make_node: Nodes, redis_server: RunningRedis
) -> None:
    """A failover to a Redis that has not got the newest notification, and whose clock is a minute behind."""
    one, two = make_node("a").start(), make_node("b").start(feed=False)
    _, session = one.connect("ada")
    say(one, "ada")
    two.broadcaster.catch_up()
    replica = {key: redis_server.client.dump(key) for key in redis_server.client.scan_iter()}
    lost = say(one, "ada")
    with redis_server.client.pipeline() as takes_over:
        takes_over.flushall()
        for key, value in replica.items():
            takes_over.restore(key, 0, value)
        takes_over.execute()
    two.inbox._clock = lambda: lost - 60_000_000
    assert say(two, "ada") < lost
    wait_for(lambda: session.closed, what="the end of a connection that misses something")
    assert not one.inbox.since("ada", lost, None, 10, 1_000).complete


# What it costs


def test_a_node_that_has_nothing_to_read_asks_once_a_second(make_node: Nodes, redis_server: RunningRedis) -> None:
    make_node("a").start()
    redis_server.client.config_resetstat()
    time.sleep(2.5)
    assert redis_server.client.info("commandstats")["cmdstat_xread"]["calls"] <= 4
