"""The line of what waits to go out: what goes to the same connections goes together, in its order."""

import itertools
import threading
import time
from collections.abc import Sequence

import pytest

from socket_server.notifications.outgoing import Batch, Outgoing
from socket_server.transport import packets
from socket_server.transport.connection import Connection
from socket_server.transport.fanout import Delivery, FanOut
from tests.unit.fakes import RecordingSession, connection

_offsets = itertools.count(1)


class Gate(FanOut):
    """Writes once it is let; notes how many packets each call had. failure: what the next call raises instead."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()
        self.calls: list[int] = []
        self.failure: BaseException | None = None

    def __call__(self, deliveries: Sequence[Delivery]) -> set[Connection]:
        self.calls.append(len(deliveries))
        assert self.let.wait(10)
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return super().__call__(deliveries)


class Line:
    """A line whose first batch is being written, and stays so until finish()."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.outgoing = Outgoing(self.gate)
        self.missed: list[set[Connection]] = []
        self._threads: list[threading.Thread] = []
        self.post([connection()[0]])
        until_true(lambda: self.gate.calls == [1])

    def post(self, audience: Sequence[Connection], size: int = 2) -> Batch:
        """Put a notification of so many bytes into the line; a thread of its own waits until it is out."""
        packet = packets.encode_notification(b'"' + b"x" * (size - 2) + b'"', next(_offsets))
        batch = made((packet, audience))
        self.outgoing.add(batch)
        self._threads.append(threading.Thread(target=self._write_out, args=(batch,)))
        self._threads[-1].start()
        return batch

    def _write_out(self, batch: Batch) -> None:
        self.missed.append(self.outgoing.write_out(batch))

    def finish(self) -> list[int]:
        """Let all be written; return how many packets each fan-out had that came after the first one."""
        self.gate.let.set()
        for thread in self._threads:
            thread.join(10)
        return self.gate.calls[1:]


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
    line, (audience, sessions) = Line(), crowd(2_000)
    for _ in range(8):
        line.post(audience)
    assert line.finish() == [8]
    for session in sessions:
        assert len(session.packets) == 8
        assert offsets(session) == sorted(offsets(session))


def test_what_shares_half_of_its_connections_joins_in() -> None:
    line, (everybody, sessions) = Line(), crowd(3_000)
    line.post(everybody[:2_000])
    line.post(everybody[1_000:])
    assert line.finish() == [2]
    assert [len(session.packets) for session in sessions] == [1] * 1_000 + [2] * 1_000 + [1] * 1_000


def test_nobodys_answer_waits_for_a_large_broadcast_to_others() -> None:
    line, (everybody, sessions) = Line(), crowd(4_000)
    line.post(everybody[:2_000])
    line.post(everybody[2_000:])
    assert line.finish() == [1, 1]
    assert {len(session.packets) for session in sessions} == {1}


def test_what_goes_to_few_goes_out_together_whoever_they_are() -> None:
    line, (everybody, sessions) = Line(), crowd(1_000)
    for each in everybody:
        line.post([each])
    assert line.finish() == [1_000]
    assert {len(session.packets) for session in sessions} == {1}


def test_what_goes_to_a_connection_at_once_is_bounded_in_bytes() -> None:
    line, (audience, [session]) = Line(), crowd(1)
    for _ in range(7):
        line.post(audience, size=5_000)
    assert line.finish() == [3, 3, 1]
    assert offsets(session) == sorted(offsets(session))


def test_one_that_is_larger_than_that_bound_goes_out_all_the_same() -> None:
    line, (audience, [session]) = Line(), crowd(1)
    line.post(audience, size=100_000)
    assert line.finish() == [1]
    assert len(session.packets) == 1


def test_a_batch_for_nobody_is_out_when_its_turn_comes() -> None:
    line = Line()
    line.post([])
    line.finish()
    assert line.missed == [set(), set()]


def test_each_is_told_who_could_not_be_written_to() -> None:
    line, (audience, sessions) = Line(), crowd(3)
    sessions[1].broken = True
    line.post(audience)
    line.post(audience)
    line.finish()
    assert line.missed.count({audience[1]}) == 2


def test_at_rest_nothing_is_on_its_way() -> None:
    line, (audience, [session]) = Line(), crowd(1)
    batch = made((packets.encode_notification(b"{}", next(_offsets)), audience))
    line.outgoing.add(batch)
    line.gate.let.set()
    with line.outgoing.at_rest():
        assert batch.missed == set()
        assert len(session.packets) == 1


def test_after_a_fault_in_a_fan_out_its_clients_come_back_and_the_next_goes_out() -> None:
    line, (audience, sessions) = Line(), crowd(2)
    _, (others, [other]) = None, crowd(1)
    line.gate.failure = RuntimeError("a fault")  # of the one that is under way; its audience is another
    line.post(audience)
    line.finish()
    assert [len(session.packets) for session in sessions] == [1, 1]
    line.gate.failure = RuntimeError("a fault")
    batch = line.post(audience)
    line.finish()
    assert batch.missed == set(audience)
    assert [session.closures for session in sessions] == [["server error"]] * 2
    line.post(others)
    line.finish()
    assert len(other.packets) == 1


def test_where_a_writer_is_ended_those_behind_it_do_not_write_its_batch_again() -> None:
    gate = Gate()
    gate.let.set()
    outgoing = Outgoing(gate)
    audience, [session] = crowd(1)
    first, second = (made((packets.encode_notification(text, next(_offsets)), audience)) for text in (b"1", b"2"))
    outgoing.add(first)
    gate.failure = SystemExit()
    with pytest.raises(SystemExit):
        outgoing.write_out(first)
    outgoing.add(second)
    assert outgoing.write_out(second) == set()
    assert [event[1] for event in session.events] == [2]
