"""What is broadcast to a connection that recovers waits in line behind its replay, within bounds."""

import itertools
import threading
import time
from typing import Any

import pytest

from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.fanout import FanOut, PacketRun
from socket_server.transport.socketio.packets import Packet, encode_notification
from tests.unit.fakes import RecordingSession, connection, handshake


def packet(number: int, size: int = 0) -> Packet:
    return encode_notification(b'{"n":%d,"x":"%b"}' % (number, b"x" * size), number)


def numbers(session: RecordingSession) -> list[int]:
    return [event[1]["n"] for event in session.events]


class RecordingWebSocket:
    """Takes prepared frames, as transport/websocket.py does."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def send(self, frame: bytes) -> bool:
        self.writes.append(frame)
        return True


def test_a_connection_that_does_not_hold_is_written_to_at_once() -> None:
    made, session = connection()
    assert not made.holds
    assert made.deliver([packet(1), packet(2)])
    assert numbers(session) == [1, 2]


def test_what_is_delivered_while_it_holds_goes_out_in_order_at_the_release() -> None:
    made, session = connection()
    made.hold()
    assert made.holds
    assert made.deliver([packet(3)])
    assert made.deliver([packet(4), packet(5)])
    assert made.send(packet(1)), "what is sent to it directly does not wait"
    assert made.send_all([packet(2)])
    assert numbers(session) == [1, 2]
    made.release()
    assert not made.holds
    assert made.deliver([packet(6)])
    assert numbers(session) == [1, 2, 3, 4, 5, 6]
    made.release()
    assert len(session.packets) == 6


def test_on_a_websocket_what_waited_goes_out_in_one_write() -> None:
    websocket = RecordingWebSocket()
    session = RecordingSession()
    session.websocket = websocket  # type: ignore[assignment]
    made = Connection("sid", session, handshake())
    made.hold()
    waiting = [packet(number) for number in range(5)]
    for each in waiting:
        assert FanOut().write([made], [PacketRun([each])]) == []
    assert websocket.writes == []
    made.release()
    FanOut().write([made], [PacketRun([packet(5)])])
    assert websocket.writes == [b"".join(each.frame for each in waiting), packet(5).frame]


def test_a_fan_out_of_several_packets_waits_too() -> None:
    made, session = connection()
    made.hold()
    assert FanOut().write([made], [PacketRun([packet(1), packet(2)])]) == []
    assert session.packets == []
    made.release()
    assert numbers(session) == [1, 2]


@pytest.mark.parametrize("over", [False, True])
def test_a_connection_that_holds_more_than_the_backlog_allows_is_closed(over: bool) -> None:
    size = len(packet(1, 100).payload)
    made, session = connection(max_backlog=3 * size - over)
    made.hold()
    assert made.deliver([packet(1, 100)])
    assert made.deliver([packet(2, 100)])
    assert made.deliver([packet(3, 100)]) is not over
    assert session.closures == (["slow consumer"] if over else [])
    assert made.gone is over


def test_nothing_more_goes_to_a_connection_that_held_too_much_and_it_costs_no_more_memory() -> None:
    made, session = connection(max_backlog=1_000)
    made.hold()
    for number in range(100):
        made.deliver([packet(number, 300)])
    assert not made.deliver([packet(100)])
    assert session.packets == []
    assert len(made._held or []) <= 1
    assert set(session.closures) == {"slow consumer"}
    assert FanOut().write([made], [PacketRun([packet(101)])]) == [made]
    made.release()
    assert session.packets == [], "what came after a gap must not arrive"


def test_a_connection_that_has_ended_takes_nothing_whether_it_holds_or_not() -> None:
    for hold, ended in itertools.product((False, True), repeat=2):
        made, session = connection()
        if hold:
            made.hold()
        if ended:
            made.ended = session.broken = True
        else:
            session.close(reason="gone")
        assert not made.deliver([packet(1)])
        assert made.gone


def test_a_second_replay_begins_with_an_empty_line() -> None:
    made, session = connection(max_backlog=500)
    for _ in range(5):
        made.hold()
        assert made.deliver([packet(1, 300)])
        made.release()
    assert session.closures == []
    assert numbers(session) == [1] * 5


class UnhurriedSession(RecordingSession):
    """Lets other threads run while it is written to."""

    def send(self, pkt: Any) -> bool:
        time.sleep(0.0001)
        return super().send(pkt)


def test_threads_that_deliver_while_it_is_released_change_no_order_and_lose_nothing() -> None:
    for _ in range(5):
        session = UnhurriedSession()
        made = Connection("sid", session, handshake())
        made.hold()
        numbered = itertools.count(1)
        turn = threading.Lock()  # of deliverers, as the broadcaster has it
        some_wait = threading.Event()

        def work(made: Connection = made, turn: Any = turn, numbered: Any = numbered, some_wait: Any = some_wait) -> None:
            for _ in range(40):
                with turn:
                    number = next(numbered)
                    assert made.deliver([packet(number)])
                if number == 20:
                    some_wait.set()
                if number >= 20:
                    time.sleep(0.0002)  # so that some come before the release, some while it is written, some after it

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert some_wait.wait(10)
        made.release()
        for thread in threads:
            thread.join()
        assert numbers(session) == list(range(1, 121))
