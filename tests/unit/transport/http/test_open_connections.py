"""Which connections are closed when there are too many."""

import time
from collections.abc import Callable

import gevent
import pytest

from socket_server.runtime.descriptors import DescriptorBudget
from socket_server.transport.http import open_connections
from socket_server.transport.http.open_connections import OpenConnections


class FakeConnection:
    def __init__(self, name: str = "") -> None:
        self.name = name
        self.opened_at = time.monotonic()
        self.deadline = float("inf")
        self.busy = False
        self.descriptor_moved = False
        self.ended = False
        self.timed_out = False

    def __repr__(self) -> str:
        return self.name

    def end(self) -> None:
        self.ended = True

    def time_out(self) -> None:
        self.timed_out = True


Make = Callable[..., OpenConnections]


@pytest.fixture
def free() -> list[int]:
    """The number of free greenlets, which a test may change."""
    return [1_000]


def make(free: list[int], limit: int = 10_000, pool_size: int = 1_000) -> OpenConnections:
    return OpenConnections(DescriptorBudget(limit, limit // 8), pool_size, lambda: free[0])


def add(connections: OpenConnections, count: int) -> list[FakeConnection]:
    made = [FakeConnection(str(number)) for number in range(count)]
    for each in made:
        connections.add(each)
    return made


def add_busy(connections: OpenConnections, count: int) -> list[FakeConnection]:
    """Add connections, each of which has a request in progress before the next one comes."""
    made = [FakeConnection(str(number)) for number in range(count)]
    for each in made:
        connections.add(each)
        connections.served(each)
    return made


def ended(made: list[FakeConnection]) -> list[str]:
    return [each.name for each in made if each.ended]


def test_the_longest_waiting_unserved_connection_is_closed_first(free: list[int]) -> None:
    connections = make(free, pool_size=10)  # 5 may wait
    made = add(connections, 7)
    assert ended(made) == ["0", "1"]


def test_a_served_connection_outlives_unserved_ones(free: list[int]) -> None:
    connections = make(free, pool_size=10)
    (served,) = add(connections, 1)
    connections.served(served)
    connections.idle(served)
    made = add(connections, 8)
    assert ended(made) == ["0", "1", "2"]
    assert not served.ended


def test_a_connection_in_a_request_is_not_closed(free: list[int]) -> None:
    connections = make(free, limit=20)  # 10 may wait
    busy = add_busy(connections, 10)
    more = add(connections, 100)
    assert ended(busy) == []
    assert len(ended(more)) >= 90


def test_while_descriptors_are_scarce_each_new_connection_costs_a_waiting_one(free: list[int]) -> None:
    connections = make(free, limit=80)  # the last 10 are the reserve
    busy, idle = add_busy(connections, 39), add_busy(connections, 30)
    for each in idle:
        connections.idle(each)
    assert not connections.scarce
    (unserved,) = add(connections, 1)
    assert connections.scarce
    new = add(connections, 3)
    assert unserved.ended
    assert ended(new) == ["0", "1"]
    assert ended(idle) == ["0"], "there was no unserved one yet"
    assert ended(busy) == []


def test_a_new_connection_is_not_the_one_that_is_closed(free: list[int]) -> None:
    connections = make(free, limit=8)  # the last one is the reserve
    busy = add_busy(connections, 7)
    connections.idle(busy[3])
    (new,) = add(connections, 1)
    assert ended(busy) == ["3"]
    assert not new.ended


def test_while_greenlets_are_scarce_waiting_connections_are_closed(free: list[int]) -> None:
    connections = make(free)
    made = add(connections, 5)
    assert ended(made) == []
    free[0] = open_connections.GREENLET_RESERVE
    assert connections.scarce
    add(connections, 2)
    assert ended(made) == ["0", "1"]


def test_descriptors_are_counted_until_a_connection_ends_or_moves_its_own(free: list[int]) -> None:
    connections = make(free)
    first, second = add(connections, 2)
    assert connections.descriptors.held == 2
    connections.remove(first)
    second.descriptor_moved = True
    connections.remove(second)
    assert connections.descriptors.held == 1
    assert len(connections) == 0


def test_a_request_in_progress_and_a_new_connection_are_waited_for(free: list[int]) -> None:
    connections = make(free)
    now = time.monotonic()
    assert not connections.expecting(now)
    (connection,) = add(connections, 1)
    assert connections.expecting(now - 1)
    assert not connections.expecting(now + 1)
    connections.served(connection)
    assert not connections.expecting(now - 1)
    connection.busy = True
    assert connections.expecting(now + 1)


def test_overdue_and_excess_connections_are_closed_by_the_watch(free: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_connections, "_WATCH_S", 0.01)
    connections = make(free, pool_size=10)
    made = add(connections, 8)
    for each in made:
        connections.served(each)
        connections.idle(each)
    made[7].deadline = time.monotonic()
    watch = gevent.spawn(connections.watch)
    try:
        gevent.sleep(0.1)
    finally:
        watch.kill()
    assert made[7].timed_out
    assert not any(each.timed_out for each in made[:7])
    assert ended(made) == ["0", "1", "2"]
