"""Deadlines are called on time, in order, and not at all once they are canceled."""

import logging
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from socket_server.runtime import time_slice
from socket_server.runtime.deadlines import Deadlines
from tests.servers import wait_for


def in_eight_threads(work: Callable[[], None], switch_s: float) -> None:
    """Run `work` in eight threads at once. switch_s: the interpreter's switch interval in seconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(switch_s)
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)


def test_a_deadline_is_called_at_its_time_and_not_before() -> None:
    deadlines, called = Deadlines(), threading.Event()
    started = time.monotonic()
    deadlines.after(0.05, called.set)
    assert called.wait(10)
    assert time.monotonic() - started >= 0.05
    wait_for(lambda: len(deadlines) == 0)


def test_calls_are_made_in_the_order_of_their_times() -> None:
    deadlines = Deadlines()
    called: list[int] = []
    for number in (5, 1, 4, 2, 3):
        deadlines.after(number * 0.03, lambda number=number: called.append(number))  # type: ignore[misc]
    wait_for(lambda: len(called) == 5)
    assert called == [1, 2, 3, 4, 5]


def test_deadlines_of_equal_time_are_called_in_the_order_of_their_making() -> None:
    deadlines = Deadlines(clock=lambda: 1.0)
    called: list[int] = []
    first_may_end = threading.Event()
    deadlines.after(0, lambda: first_may_end.wait(10))
    for number in range(50):
        deadlines.after(0, lambda number=number: called.append(number))  # type: ignore[misc]
    first_may_end.set()
    wait_for(lambda: len(called) == 50)
    assert called == list(range(50))


def test_an_earlier_deadline_is_not_delayed_by_a_later_one() -> None:
    deadlines, called = Deadlines(), threading.Event()
    deadlines.after(3_600, lambda: None)
    time.sleep(0.02)  # the thread waits for the later one now
    deadlines.after(0.02, called.set)
    assert called.wait(10)
    assert len(deadlines) == 1


@pytest.mark.parametrize("delay_s", [0, -1, -1e9])
def test_a_time_in_the_past_is_called_at_once(delay_s: float) -> None:
    deadlines, called = Deadlines(), threading.Event()
    deadlines.after(delay_s, called.set)
    assert called.wait(10)


def test_a_canceled_deadline_is_not_called() -> None:
    deadlines, after = Deadlines(), threading.Event()
    called: list[int] = []
    deadline = deadlines.after(0.05, lambda: called.append(1))
    deadlines.after(0.1, after.set)
    deadline.cancel()
    assert len(deadlines) == 1
    assert after.wait(10)
    assert called == []


def test_canceling_twice_or_after_the_call_does_nothing() -> None:
    deadlines, called = Deadlines(), threading.Event()
    first = deadlines.after(3_600, lambda: None)
    second = deadlines.after(0, called.set)
    assert called.wait(10)
    for deadline in (first, first, second, second):
        deadline.cancel()
    assert len(deadlines) == 0


def test_a_failing_call_is_logged_and_later_calls_are_made(caplog: pytest.LogCaptureFixture) -> None:
    deadlines, called = Deadlines(), threading.Event()
    with caplog.at_level(logging.ERROR):
        deadlines.after(0, lambda: 1 / 0)
        deadlines.after(0.01, called.set)
        assert called.wait(10)
    assert "ZeroDivisionError" in caplog.text


def test_a_call_may_make_and_cancel_deadlines() -> None:
    deadlines, called = Deadlines(), threading.Event()
    canceled = deadlines.after(3_600, lambda: None)

    def work() -> None:
        canceled.cancel()
        deadlines.after(0, called.set)

    deadlines.after(0, work)
    assert called.wait(10)
    wait_for(lambda: len(deadlines) == 0)


def test_canceled_deadlines_are_removed_before_their_time() -> None:
    deadlines = Deadlines()
    kept = [deadlines.after(86_400, lambda: None) for _ in range(10)]
    for _ in range(20_000):
        deadlines.after(86_400, lambda: None).cancel()
    assert len(deadlines) == 10
    assert len(deadlines._heap) < 5_000
    assert all(deadline.call is not None for deadline in kept)


def test_one_thread_serves_all_deadlines() -> None:
    before = threading.active_count()
    deadlines = Deadlines()
    assert threading.active_count() == before, "no thread before the first deadline"
    for _ in range(100):
        deadlines.after(3_600, lambda: None)
    assert threading.active_count() == before + 1


def test_deadlines_from_many_threads_are_all_called_and_counted() -> None:
    deadlines = Deadlines()
    called: list[Any] = []

    def work() -> None:
        for _ in range(1_000):
            deadlines.after(0.001, lambda: called.append(1))
            deadlines.after(3_600, lambda: called.append(2)).cancel()

    in_eight_threads(work, switch_s=1e-5)
    wait_for(lambda: len(called) >= 8_000)
    assert called == [1] * 8_000
    assert len(deadlines) == 0


@pytest.mark.parametrize("_round", range(6))
def test_deadlines_canceled_by_many_threads_at_once_are_counted_once(_round: int) -> None:
    deadlines = Deadlines()

    def work() -> None:
        for _ in range(4_000):
            deadlines.after(3_600, lambda: None).cancel()

    in_eight_threads(work, switch_s=1e-6)
    assert len(deadlines._heap) - deadlines._canceled == 0
    assert len(deadlines) == 0


def test_many_calls_at_once_yield_between_time_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time_slice, "time", SimpleNamespace(perf_counter=time.perf_counter, sleep=pauses.append))
    deadlines, called = Deadlines(), []

    def work() -> None:
        ends = time.perf_counter() + 0.002
        while time.perf_counter() < ends:
            pass
        called.append(1)

    for _ in range(50):
        deadlines.after(0.05, work)
    wait_for(lambda: len(called) == 50)
    assert len(pauses) >= 10, "50 calls of 2 ms take about 16 time slices of 5 ms"
