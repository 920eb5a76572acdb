"""The queue of a polling client: in order, bounded, and the request that waits for it."""

import time

import gevent

from socket_server.transport.engineio.packets import Packet
from socket_server.transport.engineio.polling_queue import PollingQueue


def packet(size: int) -> Packet:
    return Packet(b"4" + b"x" * (size - 1))


def test_packets_are_taken_once_and_in_order() -> None:
    queue = PollingQueue(100)
    assert queue.empty
    given = [packet(size) for size in (10, 20, 30)]
    assert all(queue.put(each) for each in given)
    assert not queue.empty
    assert queue.take() == given
    assert queue.empty
    assert queue.take() == []


def test_the_limit_holds_until_the_client_polls() -> None:
    queue = PollingQueue(100)
    assert queue.put(packet(60))
    assert queue.put(packet(40))
    assert not queue.put(packet(1))
    queue.take()
    assert queue.put(packet(100))
    assert not queue.put(packet(1))


def test_a_single_packet_may_be_larger_than_the_limit_and_the_next_one_may_not() -> None:
    queue = PollingQueue(100)
    for _ in range(3):
        assert queue.put(packet(1_000))
        assert [len(each.payload) for each in queue.take()] == [1_000]
    assert queue.put(packet(1_000))
    assert not queue.put(packet(1))


def test_a_request_waits_until_a_packet_is_queued() -> None:
    queue = PollingQueue(100)
    waiting = gevent.spawn(queue.wait, 10)
    gevent.sleep(0.01)
    assert queue.polled
    assert not waiting.ready()
    queue.put(packet(5))
    waiting.join(1)
    assert waiting.ready()
    assert not queue.polled
    queue.wait(10)  # returns at once
    assert len(queue.take()) == 1


def test_the_end_releases_the_request_that_waits() -> None:
    queue = PollingQueue(100)
    waiting = gevent.spawn(queue.wait, 10)
    gevent.sleep(0.01)
    queue.end()
    waiting.join(1)
    assert waiting.ready()
    queue.wait(10)  # returns at once


def test_a_request_waits_until_its_timeout() -> None:
    queue = PollingQueue(100)
    started = time.monotonic()
    queue.wait(0.05)
    assert 0.04 < time.monotonic() - started < 5
    assert not queue.polled
