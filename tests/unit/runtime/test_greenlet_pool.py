"""The pool does each piece of work in a greenlet of its own, and uses its greenlets again: in a real gevent hub."""

import weakref

import gevent
import pytest
from gevent.event import Event
from greenlet import getcurrent, greenlet

from socket_server.runtime.greenlet_pool import BoundedGreenletPool, GreenletPool


def done(pool: GreenletPool, times: int) -> list[greenlet]:
    """Have so many pieces of work done at once; return the greenlets that did them."""
    members: list[greenlet] = []
    for _ in range(times):
        pool.start(lambda: members.append(getcurrent()))
    assert members == []  # not before the caller gives way
    gevent.sleep(0)
    assert len(members) == times
    return members


def test_work_is_done_in_the_order_in_which_it_came_with_its_arguments() -> None:
    pool, seen = GreenletPool(), list[int]()
    for number in range(5):
        pool.start(seen.append, number)
    gevent.sleep(0)
    assert seen == [0, 1, 2, 3, 4]


def test_a_greenlet_that_is_done_takes_up_the_next_work() -> None:
    pool = GreenletPool()
    assert done(pool, 1) == done(pool, 1)


def test_work_that_waits_holds_up_no_other() -> None:
    pool, go, ended = GreenletPool(), Event(), list[str]()

    def wait() -> None:
        go.wait()
        ended.append("the one that waits")

    pool.start(wait)
    pool.start(ended.append, "another")
    gevent.sleep(0)
    assert ended == ["another"]
    go.set()
    gevent.sleep(0)
    assert ended == ["another", "the one that waits"]


def test_no_more_greenlets_stay_than_were_asked_for() -> None:
    pool = GreenletPool(kept=3)
    first = done(pool, 10)
    assert sum(not each.dead for each in first) == 3
    second = done(pool, 10)
    assert len(set(first) & set(second)) == 3


def test_an_error_ends_its_own_work_only_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    pool, seen = GreenletPool(), list[str]()

    def fail() -> None:
        raise RuntimeError("oh no")

    for _ in range(3):
        pool.start(fail)
        pool.start(seen.append, "done")
        gevent.sleep(0)
    assert seen == ["done"] * 3
    assert caplog.text.count("RuntimeError: oh no") == 3


def test_what_was_worked_on_is_let_go_before_the_next_work_comes() -> None:
    class Thing:
        def work(self, _: object) -> None:
            pass

    pool, thing, argument = GreenletPool(), Thing(), Thing()
    gone = weakref.ref(thing), weakref.ref(argument)
    pool.start(thing.work, argument)
    del thing, argument
    gevent.sleep(0)
    assert [each() for each in gone] == [None, None]


def test_places_are_taken_until_their_work_is_done_whichever_way_it_ends() -> None:
    places, go = BoundedGreenletPool(2, GreenletPool()), Event()

    def fail() -> None:
        go.wait()
        raise RuntimeError("oh no")

    places.spawn(go.wait)
    assert not places.full()
    places.spawn(fail)
    assert places.full()
    go.set()
    gevent.sleep(0)
    assert places.free_count() == 2
