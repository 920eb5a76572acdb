"""During a replay, live packets to a connection are held back, within a limit."""

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
    """Records the frames that it is sent."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def send(self, frame: bytes) -> bool:
        self.writes.append(frame)
        return True


def test_packets_are_written_at_once_if_none_are_held() -> None:
    made, session = connection()
    assert not made.holds
    assert made.deliver([packet(1), packet(2)])
    assert numbers(session) == [1, 2]


def test_held_packets_are_written_in_order_at_the_release() -> None:
    made, session = connection()
    made.hold()
    assert made.holds
    assert made.deliver([packet(3)])
    assert made.deliver([packet(4), packet(5)])
    assert made.send(packet(1)), "send() does not hold back"
    assert made.send_all([packet(2)])
    assert numbers(session) == [1, 2]
    made.release()
    assert not made.holds
    assert made.deliver([packet(6)])
    assert numbers(session) == [1, 2, 3, 4, 5, 6]
    made.release()
    assert len(session.packets) == 6


def test_held_packets_are_written_to_a_websocket_at_once() -> None:
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


def test_a_fan_out_of_several_packets_is_held_too() -> None:
    made, session = connection()
    made.hold()
    assert FanOut().write([made], [PacketRun([packet(1), packet(2)])]) == []
    assert session.packets == []
    made.release()
    assert numbers(session) == [1, 2]


@pytest.mark.parametrize("over", [False, True])
def test_a_connection_that_holds_more_than_the_limit_is_closed(over: bool) -> None:
    size = len(packet(1, 100).payload)
    made, session = connection(max_backlog=3 * size - over)
    made.hold()
    assert made.deliver([packet(1, 100)])
    assert made.deliver([packet(2, 100)])
    assert made.deliver([packet(3, 100)]) is not over
    assert session.closures == (["slow consumer"] if over else [])
    assert made.gone is over


def test_a_connection_closed_for_holding_too_much_holds_and_gets_nothing_more() -> None:
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
    assert session.packets == [], "packets after a gap must not arrive"


def test_a_connection_that_has_ended_accepts_nothing() -> None:
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


def test_each_hold_begins_with_the_whole_limit() -> None:
    made, session = connection(max_backlog=500)
    for _ in range(5):
        made.hold()
        assert made.deliver([packet(1, 300)])
        made.release()
    assert session.closures == []
    assert numbers(session) == [1] * 5


class SlowSession(RecordingSession):
    """Takes time for each write, so that other threads run."""

    def send(self, pkt: Any) -> bool:
        time.sleep(0.0001)
        return super().send(pkt)


def test_packets_delivered_by_threads_during_the_release_keep_their_order() -> None:
    for _ in range(5):
        session = SlowSession()
        made = Connection("sid", session, handshake())
        made.hold()
        numbered = itertools.count(1)
        delivery_lock = threading.Lock()  # the broadcaster delivers one after the other too
        some_held = threading.Event()

        def work(
            made: Connection = made,
            delivery_lock: Any = delivery_lock,
            numbered: Any = numbered,
            some_held: Any = some_held,
        ) -> None:
            for _ in range(40):
                with delivery_lock:
                    number = next(numbered)
                    assert made.deliver([packet(number)])
                if number == 20:
                    some_held.set()
                if number >= 20:
                    time.sleep(0.0002)  # some arrive before, some during, and some after the release

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert some_held.wait(10)
        made.release()
        for thread in threads:
            thread.join()
        assert numbers(session) == list(range(1, 121))
