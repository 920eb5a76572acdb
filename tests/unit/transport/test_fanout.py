"""Fan-out: each connection gets its packets in order, whatever becomes of the others."""

import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import gevent
import pytest

from socket_server.transport.connection import Connection
from socket_server.transport.fanout import FanOut
from socket_server.transport.limits import Limits
from socket_server.transport.packets import Packet, encode_notification
from socket_server.transport.ring import Ring
from socket_server.transport.websocket import WebSocket
from tests.unit.fakes import RecordingSession, connection


def packet(number: int) -> Packet:
    return encode_notification(b'{"n":%d}' % number, number)


def numbers(session: RecordingSession) -> list[int]:
    return [event[1]["n"] for event in session.events]


@pytest.mark.parametrize("several", [False, True], ids=["one notification", "several at once"])
def test_a_connection_whose_write_raises_costs_nobody_else_a_notification(several: bool) -> None:
    (first, before), (second, struck), (third, behind) = connection(), connection(), connection()

    def fail(_: Any) -> bool:
        raise RuntimeError("a fault")

    struck.send = fail  # type: ignore[method-assign]
    everybody = [first, second, third]
    deliveries = [(packet(1), everybody), (packet(2), everybody)] if several else [(packet(1), everybody)]
    assert FanOut()(deliveries) == {second}
    assert struck.closures == ["server error"]
    assert numbers(before) == numbers(behind) == ([1, 2] if several else [1])


# Over real WebSockets, with a system call for each connection and with one for many

LIMITS = Limits(max_message_bytes=100, send_backlog_bytes=50_000, connect_timeout_s=1, events_per_second=20)


class Client:
    """A connection over a real WebSocket with small buffers, and its client's end."""

    def __init__(self) -> None:
        ours, self.socket = socket.socketpair()
        for end in (ours, self.socket):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        self.losses: list[str] = []
        self.connection, self.session = connection()
        self.websocket = WebSocket(ours, self, LIMITS)
        self.session.websocket = self.websocket
        self.websocket.start()

    def message(self, websocket: WebSocket, data: str | bytes) -> None: ...

    def drained(self, websocket: WebSocket) -> None: ...

    def lost(self, websocket: WebSocket, reason: str) -> None:
        self.losses.append(reason)

    def received(self, size: int) -> bytes:
        """Return what the client has got, once it is so much."""
        data = b""
        deadline = time.monotonic() + 10
        while len(data) < size:
            assert time.monotonic() < deadline, f"{len(data)} of {size} bytes"
            try:
                data += self.socket.recv(1_000_000)
            except BlockingIOError:
                gevent.sleep(0.001)
        return data

    def close(self) -> None:
        self.websocket.abort()
        self.socket.close()


@pytest.fixture(params=["one system call each", "one for many"])
def fan_out(request: pytest.FixtureRequest) -> Iterator[FanOut]:
    if request.param == "one system call each":
        yield FanOut()
        return
    try:
        ring = Ring()
    except OSError as error:
        pytest.skip(f"no io_uring here: {error}")
    yield FanOut(ring)
    ring.close()


@pytest.fixture
def clients() -> Iterator[list[Client]]:
    """More than one look at the clock covers."""
    made = [Client() for _ in range(300)]
    yield made
    for client in made:
        client.close()


def connections(clients: Sequence[Client]) -> list[Connection]:
    return [client.connection for client in clients]


def test_each_connection_gets_each_notification_in_order(fan_out: FanOut, clients: list[Client]) -> None:
    packets = [packet(number) for number in range(5)]
    for each in packets:
        assert fan_out([(each, connections(clients))]) == set()
    expected = b"".join(each.frame for each in packets)
    for client in clients:
        assert client.received(len(expected)) == expected


def test_what_a_socket_does_not_take_waits_and_nothing_overtakes_it(fan_out: FanOut, clients: list[Client]) -> None:
    large = encode_notification(b'"%b"' % (b"x" * 20_000), 1)
    crowd = clients[:20]
    assert fan_out([(large, connections(crowd))]) == set()
    assert all(client.websocket.unsent for client in crowd)
    # The client makes room, and the next comes before the rest of the first has gone out.
    begun = [client.socket.recv(1_000_000) for client in crowd]
    for each in (packet(2), packet(3)):
        assert fan_out([(each, connections(crowd))]) == set()
    expected = large.frame + packet(2).frame + packet(3).frame
    for client, begin in zip(crowd, begun, strict=True):
        assert begin + client.received(len(expected) - len(begin)) == expected
    # Drained, they are written to directly again.
    assert not any(client.websocket.unsent for client in crowd)
    assert fan_out([(packet(4), connections(crowd))]) == set()
    assert {client.received(len(packet(4).frame)) for client in crowd} == {packet(4).frame}


def test_a_slow_consumer_is_cut_and_reported_while_the_others_receive(fan_out: FanOut, clients: list[Client]) -> None:
    crowd = clients[:20]
    slow, others = crowd[7], crowd[:7] + crowd[8:]
    large = encode_notification(b'"%b"' % (b"x" * 20_000), 1)
    missed: set[Connection] = set()
    for _ in range(5):
        missed |= fan_out([(large, connections(crowd))])
        for client in others:
            assert client.received(len(large.frame)) == large.frame
    assert missed == {slow.connection}
    assert slow.losses == ["slow consumer"]


def test_a_connection_whose_client_is_gone_is_reported_and_costs_nobody_else_a_notification(
    fan_out: FanOut, clients: list[Client]
) -> None:
    gone, left = clients[10], clients[280]
    gone.socket.close()
    left.websocket.abort()
    assert fan_out([(packet(1), connections(clients))]) == {gone.connection, left.connection}
    assert gone.losses == ["transport error"]
    for client in clients:
        if client not in (gone, left):
            assert client.received(len(packet(1).frame)) == packet(1).frame


def test_pollers_and_those_who_recover_are_served_beside_the_websockets(fan_out: FanOut, clients: list[Client]) -> None:
    poller, polled = connection()
    recovering = clients[5]
    recovering.connection.hold()
    assert fan_out([(packet(2), [poller, *connections(clients)])]) == set()
    assert numbers(polled) == [2]
    recovering.connection.send_all([packet(1)])
    recovering.connection.release()
    for client in clients:
        expected = packet(1).frame + packet(2).frame if client is recovering else packet(2).frame
        assert client.received(len(expected)) == expected
