"""The memory in which workers see each other's metrics: concurrent updates, and workers that are killed."""

import os
import signal
import threading

import pytest

from socket_server.metrics import families
from socket_server.metrics.shared import BUFFER_BYTES, SharedMetrics
from socket_server.metrics.snapshot import Sample, Snapshot, merged
from tests.servers import wait_for

NAME = families.CONNECTS.name


def counted(count: float) -> Snapshot:
    return [Sample(NAME, (), count), Sample(families.USERS.name, (), 1.0)]


def total(shared: SharedMetrics, name: str = NAME) -> float:
    values = [each.value for each in merged(shared.snapshots()) if each.family == name]
    assert all(isinstance(value, float) for value in values)
    return sum(values)  # type: ignore[arg-type]


@pytest.fixture
def shared() -> SharedMetrics:
    return SharedMetrics(slots=9)


def test_every_worker_sees_the_newest_snapshot_of_each(shared: SharedMetrics) -> None:
    assert shared.snapshots() == []
    for count in (1.0, 2.0, 3.0):
        shared.publish(1, counted(count))
        shared.publish(2, counted(10 * count))
    assert total(shared) == 33


def test_counters_stay_and_gauges_go_when_a_worker_has_ended(shared: SharedMetrics) -> None:
    shared.publish(1, counted(5.0))
    shared.publish(2, counted(7.0))
    shared.retire(1)
    assert (total(shared), total(shared, families.USERS.name)) == (12, 1)
    shared.retire(1)  # twice changes nothing
    shared.publish(9, counted(1.0))  # takes the slot of worker 1
    shared.retire(9)
    shared.retire(2)
    assert (total(shared), total(shared, families.USERS.name)) == (13, 0)


def test_a_snapshot_that_is_too_large_is_refused_and_the_last_one_stays(shared: SharedMetrics) -> None:
    shared.publish(1, counted(5.0))
    assert not shared.publish(1, [Sample(NAME, ("x" * BUFFER_BYTES,), 1.0)])
    assert total(shared) == 5


def test_metrics_are_wanted_after_a_scrape(shared: SharedMetrics) -> None:
    assert not shared.wanted
    shared.want()
    assert shared.wanted
    shared.retire(1)
    shared.publish(1, counted(1.0))
    shared.retire(1)
    assert shared.wanted


def test_no_reader_sees_a_counter_go_back_while_workers_publish_and_end(shared: SharedMetrics) -> None:
    """One process publishes without a pause, one moves counters of workers that have ended; this one reads."""
    publisher = os.fork()
    if publisher == 0:
        count = 0.0
        while True:
            count += 1
            shared.publish(1, counted(count))
    master = os.fork()
    if master == 0:
        for _ in range(3_000):
            shared.publish(2, counted(1.0))
            shared.retire(2)
        os._exit(0)
    try:
        seen = 0.0
        done = threading.Event()
        threading.Thread(target=lambda: (os.waitpid(master, 0), done.set())).start()
        reads = 0
        while not done.is_set():
            now = total(shared)
            assert now >= seen
            seen = now
            reads += 1
        assert reads > 10
    finally:
        os.kill(publisher, signal.SIGKILL)
        os.waitpid(publisher, 0)
    before = total(shared)
    shared.retire(1)  # it was killed in the middle of its work, and what it had published last stays
    assert total(shared) == before >= seen
    wait_for(lambda: total(shared) == before, what="a stable sum")
