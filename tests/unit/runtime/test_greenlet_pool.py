"""Greenlet pools, in a real gevent hub: each task has a greenlet for itself, and greenlets are reused."""

import weakref

import gevent
import pytest
from gevent.event import Event
from greenlet import getcurrent, greenlet

from socket_server.runtime.greenlet_pool import BoundedGreenletPool, GreenletPool


def run(pool: GreenletPool, times: int) -> list[greenlet]:
    """Run this many tasks at once. Return the greenlets that ran them."""
    members: list[greenlet] = []
    for _ in range(times):
        pool.start(lambda: members.append(getcurrent()))
    assert members == [], "no task runs before the caller yields"
    gevent.sleep(0)
    assert len(members) == times
    return members


def test_tasks_are_started_in_order_with_their_arguments() -> None:
    pool, seen = GreenletPool(), list[int]()
    for number in range(5):
        pool.start(seen.append, number)
    gevent.sleep(0)
    assert seen == [0, 1, 2, 3, 4]


def test_an_idle_greenlet_runs_the_next_task() -> None:
    pool = GreenletPool()
    assert run(pool, 1) == run(pool, 1)


def test_a_blocked_task_delays_no_other() -> None:
    pool, go, ended = GreenletPool(), Event(), list[str]()

    def wait() -> None:
        go.wait()
        ended.append("the blocked one")

    pool.start(wait)
    pool.start(ended.append, "another")
    gevent.sleep(0)
    assert ended == ["another"]
    go.set()
    gevent.sleep(0)
    assert ended == ["another", "the blocked one"]


def test_at_most_max_idle_greenlets_are_kept() -> None:
    pool = GreenletPool(max_idle=3)
    first = run(pool, 10)
    assert sum(not each.dead for each in first) == 3
    second = run(pool, 10)
    assert len(set(first) & set(second)) == 3


def test_an_error_is_logged_and_ends_its_own_task_only(caplog: pytest.LogCaptureFixture) -> None:
    pool, seen = GreenletPool(), list[str]()

    def fail() -> None:
        raise RuntimeError("oh no")

    for _ in range(3):
        pool.start(fail)
        pool.start(seen.append, "done")
        gevent.sleep(0)
    assert seen == ["done"] * 3
    assert caplog.text.count("RuntimeError: oh no") == 3


def test_an_idle_greenlet_keeps_no_reference_to_its_last_task() -> None:
    class Thing:
        def work(self, _: object) -> None:
            pass

    pool, thing, argument = GreenletPool(), Thing(), Thing()
    gone = weakref.ref(thing), weakref.ref(argument)
    pool.start(thing.work, argument)
    del thing, argument
    gevent.sleep(0)
    assert [each() for each in gone] == [None, None]


def test_a_bounded_pool_is_full_until_a_task_ends_or_fails() -> None:
    pool, go = BoundedGreenletPool(2, GreenletPool()), Event()

    def fail() -> None:
        go.wait()
        raise RuntimeError("oh no")

    pool.spawn(go.wait)
    assert not pool.full()
    pool.spawn(fail)
    assert pool.full()
    go.set()
    gevent.sleep(0)
    assert pool.free_count() == 2


def test_a_full_bounded_pool_blocks_until_a_task_ends() -> None:
    pool, go, started = BoundedGreenletPool(1, GreenletPool()), Event(), list[str]()
    pool.spawn(go.wait)
    blocked = gevent.spawn(pool.spawn, started.append, "the second")
    gevent.sleep(0.01)
    assert started == []
    go.set()
    blocked.get(timeout=5)
    gevent.sleep(0)
    assert started == ["the second"]
