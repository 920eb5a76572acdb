"""The line of what waits to go out: what goes to the same connections goes together, in its order."""

import _thread
import contextlib
import itertools
import threading
import time
from collections.abc import Sequence, Set

import pytest

from socket_server.notifications.delivery_queue import Batch, Outgoing
from socket_server.transport.socketio import packets
from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.fanout import Delivery, FanOut
from tests.unit.fakes import RecordingSession, connection

_offsets = itertools.count(1)


class Gate(FanOut):
    """Its first call waits until it is let; notes how many packets each had. failure: what the next call raises instead."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()
        self.calls: list[int] = []
        self.failure: BaseException | None = None

    def __call__(self, deliveries: Sequence[Delivery]) -> set[Connection]:
        self.calls.append(len(deliveries))
        if len(self.calls) == 1:
            assert self.let.wait(10)
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return super().__call__(deliveries)


class Line:
    """A line whose first batch is being written, to this audience, and stays so until finish()."""

    def __init__(self, audience: Sequence[Connection], *, waits: bool = True) -> None:
        """waits: whether all who bring something wait until it is out."""
        self.gate = Gate()
        self.outgoing = Outgoing(self.gate)
        if waits:
            self.outgoing.wind_down()
        self.missed: list[Set[Connection]] = []
        self._threads: list[threading.Thread] = []
        self.post(audience)
        until_true(lambda: self.gate.calls == [1])

    def post(self, audience: Sequence[Connection], size: int = 2) -> Batch:
        """Put a notification of so many bytes into the line; a thread of its own waits until it is out."""
        batch = lined_up(self.outgoing, audience, size)
        self._threads.append(threading.Thread(target=self._wait_for, args=(batch,)))
        self._threads[-1].start()
        return batch

    def send_off(self, audience: Sequence[Connection], size: int = 2) -> Batch:
        """Put a notification of so many bytes into the line, and leave it there."""
        batch = lined_up(self.outgoing, audience, size)
        assert self.outgoing.send_off(batch) == set()
        return batch

    def _wait_for(self, batch: Batch) -> None:
        self.missed.append(self.outgoing.send_off(batch))

    def finish(self) -> list[int]:
        """Let all be written; return how many packets each fan-out had that came after the first one."""
        self.gate.let.set()
        for thread in self._threads:
            thread.join(10)
        return self.gate.calls[1:]


def nothing_waits() -> tuple[Gate, Outgoing]:
    """Return a line that is written out at once, and its gate, which is open."""
    gate = Gate()
    gate.let.set()
    return gate, Outgoing(gate)


def lined_up(outgoing: Outgoing, audience: Sequence[Connection], size: int = 2) -> Batch:
    """Put a notification of so many bytes at the end of the line."""
    packet = packets.encode_notification(b'"' + b"x" * (size - 2) + b'"', next(_offsets))
    with outgoing.lot() as lot:
        if audience:
            lot.put(packet, audience)
    return lot.batch


def made(*deliveries: Delivery) -> Batch:
    batch = Batch()
    for packet, connections in deliveries:
        batch.add(packet, connections)
    return batch


def until_true(condition: object) -> None:
    ends = time.monotonic() + 10
    assert callable(condition)
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.001)


def crowd(count: int) -> tuple[list[Connection], list[RecordingSession]]:
    made = [connection() for _ in range(count)]
    return [each for each, _ in made], [session for _, session in made]


def offsets(session: RecordingSession) -> list[int]:
    return [int(event[-1]) for event in session.events]


def test_what_waits_for_the_same_connections_goes_out_together_in_its_order() -> None:
    audience, sessions = crowd(2_000)
    line = Line(audience)
    for _ in range(8):
        line.post(audience)
    assert line.finish() == [8]
    for session in sessions:
        assert len(session.packets) == 9
        assert offsets(session) == sorted(offsets(session))


def test_what_shares_half_of_its_connections_joins_in() -> None:
    everybody, sessions = crowd(3_000)
    line = Line(everybody)
    line.post(everybody[:2_000])
    line.post(everybody[1_000:])
    assert line.finish() == [2]
    assert [len(session.packets) for session in sessions] == [2] * 1_000 + [3] * 1_000 + [2] * 1_000


def test_nobodys_answer_waits_for_a_large_broadcast_to_others() -> None:
    everybody, sessions = crowd(4_000)
    line = Line(everybody)
    line.post(everybody[:2_000])
    line.post(everybody[2_000:])
    assert line.finish() == [1, 1]
    assert {len(session.packets) for session in sessions} == {2}


def test_nobodys_answer_waits_for_a_chain_of_broadcasts_that_each_share_half_with_the_one_before() -> None:
    everybody, sessions = crowd(8_000)
    line = Line(everybody)
    for start in range(0, 7_000, 1_000):
        line.post(everybody[start : start + 2_000])
    assert line.finish() == [3, 3, 1]
    assert {len(session.packets) for session in sessions[1_000:7_000]} == {3}


def test_what_goes_to_few_goes_out_together_whoever_they_are() -> None:
    everybody, sessions = crowd(1_000)
    line = Line(everybody)
    for each in everybody:
        line.post([each], size=1_000)
    assert line.finish() == [1_000]
    assert {len(session.packets) for session in sessions} == {2}


def test_what_goes_to_a_connection_at_once_is_bounded_in_bytes() -> None:
    audience, [session] = crowd(1)
    line = Line(audience)
    for _ in range(7):
        line.post(audience, size=5_000)
    assert line.finish() == [3, 3, 1]
    assert offsets(session) == sorted(offsets(session))


def test_one_that_is_larger_than_that_bound_goes_out_all_the_same() -> None:
    audience, [session] = crowd(1)
    line = Line(audience)
    line.post(audience, size=100_000)
    assert line.finish() == [1]
    assert len(session.packets) == 2


def test_a_batch_is_full_by_its_bytes_or_its_connections() -> None:
    [one, *_], _ = everybody, _ = crowd(300)
    assert not made((packets.encode_notification(b"{}", 1), [one])).full
    assert made((packets.encode_notification(b'"%s"' % (b"x" * 20_000), 1), [one])).full
    assert made((packets.encode_notification(b"{}", 1), everybody)).full


def test_a_batch_for_nobody_waits_for_nobody() -> None:
    line = Line(crowd(1)[0])
    batch = line.post([])
    until_true(lambda: batch.missed == set())
    assert line.finish() == []


def test_a_small_one_to_others_does_not_wait_for_a_large_one() -> None:
    (audience, sessions), ([other], [theirs]) = crowd(1_000), crowd(1)
    line = Line(audience)
    line.post(audience)
    batch = line.post([other])
    until_true(lambda: batch.missed == set())
    assert len(theirs.packets) == 1
    assert sessions[0].packets == []
    line.finish()
    assert {len(session.packets) for session in sessions} == {2}


def test_a_small_one_waits_for_what_goes_to_its_own_connections_before() -> None:
    (audience, sessions), ([other], [theirs]) = crowd(1_000), crowd(1)
    line = Line(audience)
    batches = [line.post(some) for some in ([*audience, other], [audience[7]], [other])]
    time.sleep(0.05)
    assert [batch.missed for batch in batches] == [None] * 3
    line.finish()
    assert len(theirs.packets) == 2
    assert offsets(theirs) == sorted(offsets(theirs))
    assert len(sessions[7].packets) == 3
    assert offsets(sessions[7]) == sorted(offsets(sessions[7]))


def test_who_brings_one_to_many_does_not_wait_until_it_is_written_out() -> None:
    audience, sessions = crowd(1_000)
    line = Line(audience, waits=False)
    batches = [line.send_off(audience) for _ in range(5)]
    assert [batch.missed for batch in batches] == [None] * 5
    line.finish()
    until_true(lambda: batches[-1].missed == set())
    assert line.gate.calls == [1, 5]
    for session in sessions:
        assert offsets(session) == sorted(offsets(session))
        assert len(session.packets) == 6


def test_nor_does_who_brings_the_only_one() -> None:
    gate = Gate()
    outgoing = Outgoing(gate)
    audience, sessions = crowd(1_000)
    batch = lined_up(outgoing, audience)
    assert outgoing.send_off(batch) == set()
    assert batch.missed is None
    gate.let.set()
    until_true(lambda: batch.missed == set())
    assert {len(session.packets) for session in sessions} == {1}


def test_one_to_few_is_written_out_at_once_and_who_brings_it_is_told_who_could_not_be_written_to() -> None:
    _, outgoing = nothing_waits()
    audience, sessions = crowd(3)
    sessions[1].broken = True
    batch = lined_up(outgoing, audience)
    assert outgoing.send_off(batch) == {audience[1]}
    assert len(sessions[0].packets) == 1


def test_one_to_few_that_must_wait_for_its_turn_is_left_in_the_line_too() -> None:
    (audience, sessions), ([other], [theirs]) = crowd(1_000), crowd(1)
    line = Line(audience, waits=False)
    behind, beside = line.send_off([audience[7]]), line.send_off([other])
    assert (behind.missed, beside.missed) == (None, set())
    assert len(theirs.packets) == 1
    line.finish()
    until_true(lambda: behind.missed == set())
    assert offsets(sessions[7]) == sorted(offsets(sessions[7]))
    assert len(sessions[7].packets) == 2


@pytest.mark.parametrize(("size", "waiting"), [(100, 16), (5_000, 3)])
def test_where_more_waits_than_goes_out_together_who_brings_the_next_waits_too(size: int, waiting: int) -> None:
    audience, sessions = crowd(300)
    line = Line(audience, waits=False)
    for _ in range(waiting):
        line.send_off(audience, size)
    last = threading.Thread(target=line.send_off, args=(audience, size))
    last.start()
    last.join(0.05)
    assert last.is_alive()
    line.finish()
    last.join(10)
    assert not last.is_alive()
    assert {len(session.packets) for session in sessions} == {waiting + 2}


def test_the_line_goes_on_though_its_writer_is_ended() -> None:
    gate = Gate()
    gate.failure = SystemExit()
    outgoing = Outgoing(gate)
    (audience, sessions), (others, theirs) = crowd(1_000), crowd(1_500)
    batches = []
    for some in (audience, others):
        batches.append(lined_up(outgoing, some))
        outgoing.send_off(batches[-1])
        until_true(lambda: gate.calls == [1])
    gate.let.set()
    until_true(lambda: batches[1].missed == set())
    assert batches[0].missed == set(audience)
    assert {tuple(session.closures) for session in sessions} == {("server error",)}
    assert {len(session.packets) for session in theirs} == {1}


def test_where_no_writer_can_be_had_who_brings_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    (audience, sessions), ([one], [few]) = crowd(300), crowd(1)
    gate, outgoing = nothing_waits()
    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", no_thread)
        with outgoing.lot() as lot:
            for some in ([one], [*audience, one], [one]):
                lot.put(packets.encode_notification(b"{}", next(_offsets)), some)
        outgoing.send_off(lot.batch)
    assert offsets(few) == sorted(set(offsets(few)))
    assert (len(few.packets), len(sessions[0].packets)) == (3, 1)
    gate.let.clear()
    gate.calls.clear()
    left = lined_up(outgoing, audience)
    outgoing.send_off(left)
    assert left.missed is None
    gate.let.set()
    until_true(lambda: left.missed == set())


def no_thread(*_: object) -> None:
    raise RuntimeError("can't start new thread")


def test_who_brings_one_to_few_does_not_write_what_goes_to_many_others() -> None:
    gate, outgoing = nothing_waits()
    [one], [few] = crowd(1)
    with outgoing.lot() as lot:
        lot.put(packets.encode_notification(b"{}", next(_offsets)), [one])
        first = lot.batch
        lot.put(packets.encode_notification(b"{}", next(_offsets)), crowd(900)[0])
    assert outgoing.send_off(first) == set()
    assert gate.calls[0] == 1
    assert len(few.packets) == 1


def test_in_the_end_who_brings_one_to_many_waits_and_is_told_who_could_not_be_written_to() -> None:
    _, outgoing = nothing_waits()
    audience, sessions = crowd(300)
    sessions[7].broken = True
    outgoing.wind_down()
    assert outgoing.send_off(lined_up(outgoing, audience)) == {audience[7]}


def test_drained_is_what_was_in_the_line_by_then() -> None:
    audience, sessions = crowd(1_000)
    line = Line(audience, waits=False)
    batch = line.send_off(audience)
    draining = threading.Thread(target=line.outgoing.drain)
    draining.start()
    draining.join(0.05)
    assert draining.is_alive()
    line.finish()
    draining.join(10)
    assert batch.missed == set()
    line.outgoing.drain()
    assert {len(session.packets) for session in sessions} == {2}


def test_each_is_told_who_could_not_be_written_to() -> None:
    audience, sessions = crowd(3)
    line = Line(audience)
    sessions[1].broken = True
    line.post(audience)
    line.finish()
    assert line.missed == [{audience[1]}] * 2


def test_at_rest_nothing_is_on_its_way() -> None:
    audience, [session] = crowd(1)
    line = Line(audience)
    batch = lined_up(line.outgoing, audience)
    line.gate.let.set()
    with line.outgoing.at_rest():
        assert batch.missed == set()
        assert len(session.packets) == 2


@pytest.mark.parametrize("failure", [RuntimeError("a fault"), SystemExit()])
def test_where_a_fan_out_fails_its_clients_come_back_and_nothing_newer_goes_to_them(failure: BaseException) -> None:
    gate, outgoing = nothing_waits()
    outgoing.wind_down()
    (audience, sessions), (others, [other]) = crowd(3), crowd(1)
    sessions[0].close = fail_to_close  # type: ignore[method-assign]
    gate.failure = failure
    first = lined_up(outgoing, audience)
    with contextlib.suppress(SystemExit):
        outgoing.send_off(first)
    assert first.missed == set(audience)
    assert [session.closures for session in sessions[1:]] == [["server error"]] * 2
    for some in (audience, others):
        outgoing.send_off(lined_up(outgoing, some))
    assert [session.packets for session in sessions[1:]] == [[], []]
    assert len(other.packets) == 1


def fail_to_close(*, reason: str) -> None:
    raise OSError(reason)
