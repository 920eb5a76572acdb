"""Delivery queue: each connection gets its packets once and in order; what is pending for it shares a write."""

import _thread
import contextlib
import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from socket_server.notifications import delivery_queue
from socket_server.notifications.delivery_queue import (
    HIGH_WATER_BYTES,
    IDLE_POLLS,
    MAX_CHUNK_BYTES,
    MAX_COALESCE_POLLS,
    MAX_COALESCED_BYTES,
    MAX_DIRECT_BATCH,
    Batch,
    DeliveryQueue,
)
from socket_server.transport.socketio import packets
from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.fanout import MAX_WRITES, FanOut, PacketRun
from socket_server.transport.socketio.packets import Packet
from tests.unit.fakes import RecordingSession, connection

_offsets = itertools.count(1)

Audience = tuple[list[Connection], list[RecordingSession]]


class RecordingFanOut(FanOut):
    """Notes the packets of each write. hold(): the next call waits for `go_on`. failure: what the next call raises."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[int]] = []  # of each call: the number of packets that each connection gets
        self.sizes: list[int] = []  # of each call: its bytes
        self.writing = threading.Event()
        self.go_on = threading.Event()
        self.failure: BaseException | None = None
        self._held = False

    def hold(self) -> None:
        self._held = True

    def write(self, connections: Sequence[Connection], runs: Sequence[PacketRun]) -> list[Connection]:
        if runs:
            self.calls.append([len(run.packets) for run in runs])
            self.sizes.append(sum(run.size for run in runs))
            assert len(set(connections)) == len(connections)
        if self._held and runs:
            self._held = False
            self.writing.set()
            assert self.go_on.wait(10)
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return super().write(connections, runs)


def make_queue() -> tuple[DeliveryQueue, RecordingFanOut]:
    fan_out = RecordingFanOut()
    return DeliveryQueue(fan_out), fan_out


def held_queue() -> tuple[DeliveryQueue, RecordingFanOut]:
    """Return a queue whose flusher is held in its first write, to a connection of its own."""
    queue, fan_out = make_queue()
    fan_out.hold()
    enqueue(queue, crowd(1)[0])
    assert queue.start_flusher()
    assert fan_out.writing.wait(10)
    fan_out.calls.clear()
    fan_out.sizes.clear()
    return queue, fan_out


def crowd(count: int) -> Audience:
    made = [connection() for _ in range(count)]
    return [each for each, _ in made], [session for _, session in made]


def notification(size: int = 40) -> Packet:
    """Return a notification of about this many bytes, with the next offset."""
    return packets.encode_notification(b'"' + b"x" * (size - 40) + b'"', next(_offsets))


def enqueue(queue: DeliveryQueue, *audiences: Sequence[Connection], size: int = 40) -> Batch:
    """Enqueue a notification for each audience, as one batch."""
    batch = Batch()
    for audience in audiences:
        queue.enqueue(batch, notification(size), audience)
    return batch


def send(queue: DeliveryQueue, *audiences: Sequence[Connection], size: int = 40) -> frozenset[Connection]:
    return queue.submit(enqueue(queue, *audiences, size=size))


def offsets(session: RecordingSession) -> list[int]:
    return [int(event[-1]) for event in session.events]


def until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.001)


def written(queue: DeliveryQueue) -> None:
    until(lambda: queue.pending_bytes == 0)
    queue.drain()


def running(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


# Few connections: written by the publisher


def test_a_broadcast_to_few_is_written_by_its_publisher_and_the_connections_that_ended_are_returned() -> None:
    queue, fan_out = make_queue()
    audience, sessions = crowd(3)
    sessions[1].broken = True
    assert send(queue, audience) == {audience[1]}
    assert fan_out.calls == [[1, 1, 1]]
    assert [len(session.packets) for session in sessions] == [1, 0, 1]


def test_broadcasts_of_a_batch_share_their_writes() -> None:
    queue, fan_out = make_queue()
    audience, sessions = crowd(100)
    send(queue, *[[each] for each in audience], audience[:10], audience[5:])
    assert fan_out.calls == [[2] * 5 + [3] * 5 + [2] * 90]
    for session in sessions:
        assert offsets(session) == sorted(offsets(session))


def test_a_broadcast_to_few_takes_along_what_is_pending_for_its_connections_and_waits_for_no_others() -> None:
    queue, _ = make_queue()
    audience, sessions = crowd(1_000)
    first = enqueue(queue, audience)
    send(queue, [audience[7]])
    assert len(sessions[7].packets) == 2
    assert offsets(sessions[7]) == sorted(offsets(sessions[7]))
    assert {len(session.packets) for session in sessions if session is not sessions[7]} == {0}
    queue.submit(first)
    written(queue)
    assert [len(session.packets) for session in sessions] == [2 if at == 7 else 1 for at in range(1_000)]


def test_publishers_of_one_batch_share_the_work_and_all_are_told_who_ended() -> None:
    queue, fan_out = make_queue()
    audience, sessions = crowd(600)
    sessions[0].broken = sessions[599].broken = True
    batch = enqueue(queue, *[[each] for each in audience])
    missed = [queue.submit(batch) for _ in range(3)]
    assert missed == [{audience[0], audience[599]}] * 3
    assert [len(call) for call in fan_out.calls] == [256, 256, 88]


def test_of_a_large_batch_the_first_are_written_at_once_and_the_others_by_the_flusher() -> None:
    queue, fan_out = held_queue()
    audience, sessions = crowd(MAX_DIRECT_BATCH + 500)
    batch = enqueue(queue, *[[each] for each in audience])
    assert list(batch.direct) == audience[:MAX_DIRECT_BATCH]
    fan_out.go_on.set()
    queue.submit(batch)
    written(queue)
    assert {len(session.packets) for session in sessions} == {1}


def test_an_empty_batch_waits_for_nothing() -> None:
    queue, fan_out = held_queue()
    assert send(queue) == frozenset()
    assert fan_out.calls == []
    fan_out.go_on.set()


# Many connections: left to the flusher


def test_a_publisher_to_many_does_not_wait_until_they_are_written_to() -> None:
    queue, fan_out = held_queue()
    audience, sessions = crowd(1_000)
    for _ in range(5):
        assert send(queue, audience) == frozenset()
    assert {len(session.packets) for session in sessions} == {0}
    fan_out.go_on.set()
    written(queue)
    for session in sessions:
        assert len(session.packets) == 5
        assert offsets(session) == sorted(offsets(session))


def test_what_is_pending_for_a_connection_is_one_write() -> None:
    queue, fan_out = held_queue()
    audience, _ = crowd(1_000)
    for _ in range(8):
        send(queue, audience)
    fan_out.go_on.set()
    written(queue)
    assert [set(call) for call in fan_out.calls] == [{8}] * 4
    assert sum(map(len, fan_out.calls)) == 1_000


def test_overlapping_audiences_share_their_writes_too() -> None:
    queue, fan_out = held_queue()
    everybody, sessions = crowd(3_000)
    for start in range(0, 2_001, 500):
        send(queue, everybody[start : start + 1_000])
    fan_out.go_on.set()
    written(queue)
    assert [len(session.packets) for session in sessions] == [1] * 500 + [2] * 2_000 + [1] * 500
    assert sum(map(len, fan_out.calls)) == 3_000
    for session in sessions:
        assert offsets(session) == sorted(offsets(session))


def test_one_write_to_a_connection_is_bounded_in_bytes() -> None:
    queue, fan_out = held_queue()
    audience, [session, *_] = crowd(300)
    for _ in range(7):
        send(queue, audience, size=5_000)
    fan_out.go_on.set()
    written(queue)
    assert max(map(max, fan_out.calls)) == MAX_COALESCED_BYTES // 5_000
    assert offsets(session) == sorted(offsets(session))
    assert len(session.packets) == 7


def test_a_packet_that_is_larger_than_that_bound_is_written_by_itself() -> None:
    queue, fan_out = make_queue()
    [one], [session] = crowd(1)
    batch = Batch()
    for size in (100_000, 40, 100_000, 100_000):
        queue.enqueue(batch, notification(size), [one])
    queue.submit(batch)
    assert fan_out.calls == [[1], [1], [1], [1]]
    assert offsets(session) == sorted(offsets(session))
    assert queue.pending_bytes == 0


def test_the_clock_is_read_after_a_bounded_number_of_bytes_and_writes() -> None:
    queue, fan_out = make_queue()
    audience, _ = crowd(1_000)
    enqueue(queue, audience)
    enqueue(queue, audience[:100], size=10_000)
    queue.drain()
    assert max(map(len, fan_out.calls)) == MAX_WRITES
    assert max(fan_out.sizes) <= MAX_CHUNK_BYTES + 10_040
    assert sum(map(len, fan_out.calls)) == 1_000


def test_what_is_enqueued_while_a_connection_is_written_to_is_written_after_it() -> None:
    queue, fan_out = make_queue()
    audience, sessions = crowd(300)
    fan_out.hold()
    first = enqueue(queue, audience)
    flushing = running(lambda: queue.submit(first))
    assert fan_out.writing.wait(10)
    second = running(lambda: send(queue, audience[:2]))
    second.join(0.05)
    assert second.is_alive()
    fan_out.go_on.set()
    for thread in (flushing, second):
        thread.join(10)
    written(queue)
    assert [len(session.packets) for session in sessions] == [2] * 2 + [1] * 298
    assert offsets(sessions[0]) == sorted(offsets(sessions[0]))


def test_from_many_threads_each_connection_gets_its_packets_in_order() -> None:
    queue = DeliveryQueue(FanOut())
    audience, sessions = crowd(600)
    order = threading.Lock()
    due: dict[Connection, int] = dict.fromkeys(audience, 0)

    def publish(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(60):
            some = audience[dice.randrange(300) :][: dice.choice((1, 20, 290))]
            with order:
                batch = enqueue(queue, some, size=dice.choice((40, 9_000)))
                for each in some:
                    due[each] += 1
            queue.submit(batch)

    threads = [running(lambda seed=seed: publish(seed)) for seed in range(6)]  # type: ignore[misc]
    for thread in threads:
        thread.join(30)
    written(queue)
    assert [len(session.packets) for session in sessions] == list(due.values())
    for session in sessions:
        assert offsets(session) == sorted(offsets(session))


# Backpressure


def test_publishers_block_above_the_high_water_mark_until_there_is_room() -> None:
    queue, fan_out = held_queue()
    audience, sessions = crowd(300)
    each = len(audience) * len(notification(100_000).payload)
    within = HIGH_WATER_BYTES // each
    for _ in range(within):
        send(queue, audience, size=100_000)
    assert queue.pending_bytes == within * each <= HIGH_WATER_BYTES
    blocked = [running(lambda: send(queue, audience, size=100_000)) for _ in range(2)]
    blocked[-1].join(0.05)
    assert all(thread.is_alive() for thread in blocked)
    fan_out.go_on.set()
    for thread in blocked:
        thread.join(10)
        assert not thread.is_alive()
    written(queue)
    assert {len(session.packets) for session in sessions} == {within + 2}


def test_a_publisher_to_few_does_not_block_above_the_high_water_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, _ = make_queue()
    audience, sessions = crowd(300)
    monkeypatch.setattr(_thread, "start_new_thread", lambda *_: None)  # a flusher that does not get to run
    enqueue(queue, *[audience] * 40, size=10_000)
    assert queue.pending_bytes > HIGH_WATER_BYTES
    assert queue.start_flusher()
    sending = running(lambda: send(queue, audience[:2]))
    sending.join(5)
    assert not sending.is_alive()
    assert [len(session.packets) for session in sessions] == [41] * 2 + [0] * 298
    mixed = enqueue(queue, audience[:2], audience)
    queue.submit(mixed, may_block=False)
    assert [len(session.packets) for session in sessions] == [43] * 2 + [0] * 298
    assert queue.pending_bytes > HIGH_WATER_BYTES


def test_a_blocked_publisher_continues_though_the_flusher_is_killed() -> None:
    queue, fan_out = held_queue()
    audience, sessions = crowd(300)
    fan_out.failure = SystemExit()  # of the write that the flusher is in
    blocked = running(lambda: send(queue, *[audience] * 40, size=10_000))
    until(lambda: queue.pending_bytes > HIGH_WATER_BYTES)
    fan_out.go_on.set()
    blocked.join(10)
    assert not blocked.is_alive()
    written(queue)
    assert {len(session.packets) for session in sessions} == {40}


# Failures


@pytest.mark.parametrize("failure", [RuntimeError("a fault"), SystemExit()])
def test_if_a_write_fails_its_connections_are_closed_and_get_nothing_newer(failure: BaseException) -> None:
    queue, fan_out = make_queue()
    (audience, sessions), (others, [other]) = crowd(3), crowd(1)
    sessions[0].close = fail_to_close  # type: ignore[method-assign]
    fan_out.failure = failure
    batch = enqueue(queue, audience)
    with contextlib.suppress(SystemExit):
        queue.submit(batch)
    assert batch.missed == set(audience)
    assert [session.closures for session in sessions[1:]] == [["server error"]] * 2
    send(queue, audience, others)
    assert [session.packets for session in sessions[1:]] == [[], []]
    assert len(other.packets) == 1


def fail_to_close(*, reason: str) -> None:
    raise OSError(reason)


def test_if_the_flusher_is_killed_the_connections_of_its_write_are_closed_and_another_writes_to_the_others() -> None:
    queue, fan_out = make_queue()
    (audience, sessions), (others, theirs) = crowd(MAX_WRITES), crowd(1_500)
    fan_out.failure = SystemExit()
    send(queue, [*audience, *others])
    written(queue)
    assert {tuple(session.closures) for session in sessions} == {("server error",)}
    assert {len(session.packets) for session in theirs} == {1}
    assert {tuple(session.closures) for session in theirs} == {()}


def test_if_no_flusher_can_be_started_the_publisher_writes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, _ = make_queue()
    audience, sessions = crowd(300)
    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", no_thread)
        send(queue, [audience[0]], audience, [audience[0]])
        assert [len(session.packets) for session in sessions] == [3] + [1] * 299
    send(queue, audience)
    written(queue)
    assert [len(session.packets) for session in sessions] == [4] + [2] * 299


def no_thread(*_: object) -> None:
    raise RuntimeError("can't start new thread")


def test_what_was_enqueued_and_never_submitted_is_left_to_the_flusher() -> None:
    queue, _ = make_queue()
    audience, sessions = crowd(10)
    enqueue(queue, audience)
    queue.start_flusher()
    written(queue)
    assert {len(session.packets) for session in sessions} == {1}


# The end


def test_draining_returns_when_everything_is_written() -> None:
    queue, fan_out = held_queue()
    audience, sessions = crowd(1_000)
    send(queue, audience)
    draining = running(queue.drain)
    draining.join(0.05)
    assert draining.is_alive()
    fan_out.go_on.set()
    draining.join(10)
    assert not draining.is_alive()
    assert {len(session.packets) for session in sessions} == {1}


def test_after_close_a_broadcast_to_many_is_written_before_its_publisher_is_answered() -> None:
    queue, fan_out = held_queue()
    audience, sessions = crowd(2_000)
    send(queue, audience)
    fan_out.go_on.set()
    queue.close()
    assert {len(session.packets) for session in sessions} == {1}
    sessions[7].broken = True
    assert send(queue, audience) == {audience[7]}
    assert queue.pending_bytes == 0


@pytest.mark.parametrize(
    ("arrivals", "polls_of_the_round", "broadcasts"),
    [
        ([], IDLE_POLLS, 1),
        ([1], IDLE_POLLS + 1, 2),
        ([1, 0, 1, 1], IDLE_POLLS + 4, 4),
        ([0] * IDLE_POLLS + [1], IDLE_POLLS, 1),
        ([1] * 100, MAX_COALESCE_POLLS, MAX_COALESCE_POLLS + 1),
    ],
)
def test_before_a_round_the_event_loop_is_polled_as_long_as_polls_bring_broadcasts(
    monkeypatch: pytest.MonkeyPatch, arrivals: list[int], polls_of_the_round: int, broadcasts: int
) -> None:
    queue, fan_out = make_queue()
    audience, _ = crowd(300)
    polls = 0

    def poll() -> None:
        nonlocal polls
        if polls < len(arrivals) and arrivals[polls]:
            enqueue(queue, audience)
        polls += 1

    monkeypatch.setattr(delivery_queue, "poll_event_loop", poll)
    send(queue, audience)
    written(queue)
    assert polls == polls_of_the_round
    assert [set(call) for call in fan_out.calls] == [{broadcasts}, {broadcasts}]
