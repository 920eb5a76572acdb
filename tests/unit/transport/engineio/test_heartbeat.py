"""The heartbeat of all sessions, in a real gevent hub."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from socket_server.transport.engineio.heartbeat import Heartbeat

INTERVAL_S = 0.1
TIMEOUT_S = 0.2


class Session:
    """A session that records its calls. on_ping, on_overdue: called at each of them."""

    def __init__(self, on_ping: Callable[[], Any] = lambda: None, on_overdue: Callable[[], Any] = lambda: None) -> None:
        self.pings: list[float] = []
        self.overdues: list[float] = []
        self.on_ping = on_ping
        self.on_overdue = on_overdue

    def ping(self) -> None:
        self.pings.append(time.monotonic())
        self.on_ping()

    def overdue(self) -> None:
        self.overdues.append(time.monotonic())
        self.on_overdue()


@pytest.fixture
def heartbeat() -> Iterator[Heartbeat]:
    """A fast heartbeat; its timer is closed after the test."""
    made = Heartbeat(INTERVAL_S, TIMEOUT_S)
    yield made
    for session in [*made._waiting, *made._pinged]:
        made.discard(session)
    if made._timer is not None:
        made._timer.stop()
        made._timer.close()


def hub_until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come"
        gevent.sleep(0.005)


def test_a_session_is_pinged_an_interval_after_its_start(heartbeat: Heartbeat) -> None:
    session, started = Session(), time.monotonic()
    heartbeat.add(session)
    hub_until(lambda: session.pings)
    assert session.pings[0] - started >= INTERVAL_S * 0.9
    assert not session.overdues


def test_a_session_that_answers_is_pinged_again_and_is_never_overdue(heartbeat: Heartbeat) -> None:
    session = Session()
    session.on_ping = lambda: gevent.spawn_later(0.01, heartbeat.pong, session)
    heartbeat.add(session)
    hub_until(lambda: len(session.pings) >= 5)
    gaps = [later - earlier for earlier, later in zip(session.pings, session.pings[1:], strict=False)]
    assert min(gaps) >= INTERVAL_S * 0.9
    assert not session.overdues


def test_a_session_that_answers_in_its_ping_is_pinged_again(heartbeat: Heartbeat) -> None:
    session = Session()
    session.on_ping = lambda: heartbeat.pong(session)
    heartbeat.add(session)
    hub_until(lambda: len(session.pings) >= 3)
    assert not session.overdues


def test_a_session_that_does_not_answer_is_overdue_once_after_the_timeout(heartbeat: Heartbeat) -> None:
    session = Session()
    heartbeat.add(session)
    hub_until(lambda: session.overdues)
    assert session.overdues[0] - session.pings[0] >= TIMEOUT_S * 0.9
    gevent.sleep(INTERVAL_S + TIMEOUT_S + 0.1)
    assert len(session.pings) == 1
    assert len(session.overdues) == 1


def test_a_pong_without_a_ping_changes_nothing(heartbeat: Heartbeat) -> None:
    session, other = Session(), Session()
    heartbeat.add(session)
    hub_until(lambda: heartbeat.pong(session) or heartbeat.pong(other) or session.pings)
    heartbeat.pong(session)
    heartbeat.pong(session)
    hub_until(lambda: len(session.pings) == 2)
    assert not other.pings


def test_a_discarded_session_is_not_called(heartbeat: Heartbeat) -> None:
    unpinged, pinged, kept = Session(), Session(), Session()
    for session in (unpinged, pinged):
        heartbeat.add(session)
    heartbeat.discard(unpinged)
    hub_until(lambda: pinged.pings)
    heartbeat.discard(pinged)
    heartbeat.discard(pinged)
    heartbeat.add(kept)
    hub_until(lambda: kept.overdues)
    assert not unpinged.pings
    assert not pinged.overdues


def test_a_session_may_end_itself_when_it_is_pinged(heartbeat: Heartbeat) -> None:
    ending, other = Session(), Session()
    ending.on_ping = lambda: heartbeat.discard(ending)
    heartbeat.add(ending)
    heartbeat.add(other)
    hub_until(lambda: other.overdues)
    assert not ending.overdues


def test_a_session_that_ends_another_when_it_is_pinged_does_not_stop_the_heartbeat(heartbeat: Heartbeat) -> None:
    first, second, other = Session(), Session(), Session()
    first.on_ping = lambda: heartbeat.discard(second)
    for session in (first, second, other):
        heartbeat.add(session)
    hub_until(lambda: first.pings)
    hub_until(lambda: other.overdues, timeout_s=2)
    assert not second.pings


@pytest.mark.parametrize("moment", ["on_ping", "on_overdue"])
def test_a_session_that_raises_does_not_stop_the_heartbeat(heartbeat: Heartbeat, moment: str) -> None:
    failing, other = Session(), Session()
    setattr(failing, moment, lambda: 1 / 0)
    heartbeat.add(failing)
    heartbeat.add(other)
    hub_until(lambda: failing.pings)
    hub_until(lambda: other.overdues, timeout_s=2)


def test_1000_sessions_that_begin_together_are_all_pinged_and_found_overdue(heartbeat: Heartbeat) -> None:
    sessions = [Session() for _ in range(1_000)]
    for session in sessions:
        heartbeat.add(session)
    hub_until(lambda: all(session.overdues for session in sessions))
    assert {len(session.pings) for session in sessions} == {1}


def test_other_greenlets_run_while_1000_sessions_are_pinged(heartbeat: Heartbeat) -> None:
    sessions = [Session() for _ in range(1_000)]
    for session in sessions:
        heartbeat.add(session)
    partly: set[int] = set()

    def look() -> bool:
        partly.add(sum(bool(session.pings) for session in sessions))
        gevent.sleep(0)
        return len(sessions) in partly

    while not look():
        pass
    assert partly - {0, len(sessions)}, "all were pinged without a pause"


def test_there_is_no_timer_without_sessions(heartbeat: Heartbeat) -> None:
    session = Session()
    heartbeat.add(session)
    heartbeat.discard(session)
    hub_until(lambda: heartbeat._timer is None)
    heartbeat.add(session)
    hub_until(lambda: session.pings)


def test_both_queues_stay_in_the_order_of_time(heartbeat: Heartbeat) -> None:
    sessions = [Session() for _ in range(50)]
    for session in sessions:
        session.on_ping = lambda session=session: gevent.spawn(heartbeat.pong, session)  # type: ignore[misc]
        heartbeat.add(session)
        gevent.sleep(0.002)
    hub_until(lambda: min(len(session.pings) for session in sessions) >= 3)
    for queue in (heartbeat._waiting, heartbeat._pinged):
        assert list(queue.values()) == sorted(queue.values())
