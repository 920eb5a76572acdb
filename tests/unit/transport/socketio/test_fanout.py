"""Fan-out: each connection gets its packets in order, whatever happens to the others."""

import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import gevent
import pytest

from socket_server.runtime.ring import Ring
from socket_server.transport.engineio.limits import Limits
from socket_server.transport.engineio.websocket import WebSocket
from socket_server.transport.socketio.connection import Connection
from socket_server.transport.socketio.fanout import MAX_WRITES, FanOut, PacketRun
from socket_server.transport.socketio.packets import Packet, encode_notification
from tests.unit.fakes import RecordingSession, connection

Delivery = tuple[Packet, Sequence[Connection]]


def packet(number: int) -> Packet:
    return encode_notification(b'{"n":%d}' % number, number)


def numbers(session: RecordingSession) -> list[int]:
    return [event[1]["n"] for event in session.events]


def write(fan_out: FanOut, *deliveries: Delivery) -> set[Connection]:
    """Write these packets, to each connection all of its packets at once; return the connections that have ended."""
    runs: dict[Connection, PacketRun] = {}
    for each, connections in deliveries:
        for made in connections:
            runs[made] = runs[made].followed_by(each) if made in runs else PacketRun((each,))
    missed: set[Connection] = set()
    everybody = list(runs)
    for start in range(0, len(everybody), MAX_WRITES):
        some = everybody[start : start + MAX_WRITES]
        missed.update(fan_out.write(some, [runs[made] for made in some]))
    return missed


# Runs of packets


def test_a_run_is_one_frame_after_the_other() -> None:
    run = PacketRun((packet(1),)).followed_by(packet(2)).followed_by(packet(3))
    assert run.frame == packet(1).frame + packet(2).frame + packet(3).frame
    assert run.size == sum(len(each.payload) for each in run.packets)


def test_a_run_is_split_within_a_number_of_bytes_but_after_one_packet_at_least() -> None:
    run = PacketRun([packet(number) for number in range(5)])
    each = len(packet(0).payload)
    for max_bytes, first in ((2 * each, 2), (3 * each - 1, 2), (1, 1), (100 * each, 4)):
        made = PacketRun(run.packets)
        parts = made.split(max_bytes)
        assert [len(part.packets) for part in parts] == [first, 5 - first]
        assert parts[0].frame + parts[1].frame == run.frame
        assert made.split(max_bytes) is parts


# Writing


def test_a_write_that_raises_closes_its_connection_and_the_others_get_their_packets() -> None:
    (first, before), (second, struck), (third, behind) = connection(), connection(), connection()

    def fail(_: Any) -> bool:
        raise RuntimeError("a fault")

    struck.send = fail  # type: ignore[method-assign]
    everybody = [first, second, third]
    assert write(FanOut(), (packet(1), everybody), (packet(2), everybody)) == {second}
    assert struck.closures == ["server error"]
    assert numbers(before) == numbers(behind) == [1, 2]


# Over real WebSockets, with one system call for each connection and with one for many

LIMITS = Limits(max_message_bytes=100, send_backlog_bytes=50_000, auth_timeout_s=1, events_per_second=20)


class Client:
    """A connection over a real WebSocket with small buffers, and its client's end."""

    def __init__(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
        ours, self.socket = socket.socketpair(type=kind)
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
        """Return what the client has received, once it is this many bytes."""
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


class CountingRing(Ring):
    """A ring that notes the number of sockets of each call."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        super().__init__()
        self.calls.clear()  # without the call by which it tests the kernel

    def send(self, frames: Sequence[bytes], fds: Sequence[int]) -> dict[int, int]:
        self.calls.append(len(fds))
        return super().send(frames, fds)


@pytest.fixture
def ring() -> Iterator[CountingRing]:
    try:
        made = CountingRing()
    except OSError as error:
        pytest.skip(f"no io_uring here: {error}")
    yield made
    made.close()


@pytest.fixture(params=["one system call each", "one for many"])
def fan_out(request: pytest.FixtureRequest) -> FanOut:
    return FanOut() if request.param == "one system call each" else FanOut(request.getfixturevalue("ring"))


@pytest.fixture
def clients() -> Iterator[list[Client]]:
    made = [Client() for _ in range(300)]
    yield made
    for client in made:
        client.close()


def connections(clients: Sequence[Client]) -> list[Connection]:
    return [client.connection for client in clients]


def test_each_connection_gets_each_notification_in_order(fan_out: FanOut, clients: list[Client]) -> None:
    packets = [packet(number) for number in range(5)]
    for each in packets:
        assert write(fan_out, (each, connections(clients))) == set()
    expected = b"".join(each.frame for each in packets)
    for client in clients:
        assert client.received(len(expected)) == expected


def test_what_a_socket_does_not_take_is_sent_later_and_before_anything_newer(
    fan_out: FanOut, clients: list[Client]
) -> None:
    large = encode_notification(b'"%b"' % (b"x" * 20_000), 1)
    crowd = clients[:20]
    assert write(fan_out, (large, connections(crowd))) == set()
    assert all(client.websocket.unsent for client in crowd)
    # The client reads, and the next packets come before the rest of the first has been sent.
    begun = [client.socket.recv(1_000_000) for client in crowd]
    for each in (packet(2), packet(3)):
        assert write(fan_out, (each, connections(crowd))) == set()
    expected = large.frame + packet(2).frame + packet(3).frame
    for client, begin in zip(crowd, begun, strict=True):
        assert begin + client.received(len(expected) - len(begin)) == expected
    # With empty send buffers, they are written to directly again.
    assert not any(client.websocket.unsent for client in crowd)
    assert write(fan_out, (packet(4), connections(crowd))) == set()
    assert {client.received(len(packet(4).frame)) for client in crowd} == {packet(4).frame}


def test_a_slow_consumer_is_closed_and_returned_and_the_others_receive(fan_out: FanOut, clients: list[Client]) -> None:
    crowd = clients[:20]
    slow, others = crowd[7], crowd[:7] + crowd[8:]
    large = encode_notification(b'"%b"' % (b"x" * 20_000), 1)
    missed: set[Connection] = set()
    for _ in range(5):
        missed |= write(fan_out, (large, connections(crowd)))
        for client in others:
            assert client.received(len(large.frame)) == large.frame
    assert missed == {slow.connection}
    assert slow.losses == ["slow consumer"]


def test_a_connection_whose_client_is_gone_is_returned_and_the_others_receive(
    fan_out: FanOut, clients: list[Client]
) -> None:
    gone, left = clients[10], clients[280]
    gone.socket.close()
    left.websocket.abort()
    assert write(fan_out, (packet(1), connections(clients))) == {gone.connection, left.connection}
    assert gone.losses == ["transport error"]
    for client in clients:
        if client not in (gone, left):
            assert client.received(len(packet(1).frame)) == packet(1).frame


def test_polling_and_recovering_connections_are_written_to_beside_the_websockets(
    fan_out: FanOut, clients: list[Client]
) -> None:
    poller, polled = connection()
    recovering = clients[5]
    recovering.connection.hold()
    assert write(fan_out, (packet(2), [poller, *connections(clients)])) == set()
    assert numbers(polled) == [2]
    recovering.connection.send_all([packet(1)])
    recovering.connection.release()
    for client in clients:
        expected = packet(1).frame + packet(2).frame if client is recovering else packet(2).frame
        assert client.received(len(expected)) == expected


# Several notifications at once, each with its own audience

Expected = dict[Client, bytes]


def overlapping(clients: Sequence[Client]) -> tuple[list[Delivery], Expected]:
    """Return deliveries of which each connection gets some, from one to seven, and what each is to receive."""
    audiences = {number: [client for at, client in enumerate(clients) if at % number == 0] for number in range(1, 8)}
    expected = {
        client: b"".join(packet(number).frame for number, audience in audiences.items() if client in audience)
        for client in clients
    }
    return [(packet(number), connections(audience)) for number, audience in audiences.items()], expected


def test_several_notifications_reach_each_connection_in_order(fan_out: FanOut, clients: list[Client]) -> None:
    deliveries, expected = overlapping(clients)
    for _ in range(3):
        assert write(fan_out, *deliveries) == set()
    for client in clients:
        assert client.received(3 * len(expected[client])) == 3 * expected[client]


@pytest.mark.parametrize("many", [20, 2], ids=["many connections", "two connections"])
def test_all_packets_of_a_connection_are_one_write(fan_out: FanOut, many: int) -> None:
    clients = [Client(socket.SOCK_SEQPACKET) for _ in range(many)]  # every write is received by itself
    deliveries, expected = overlapping(clients)
    assert write(fan_out, *deliveries) == set()
    assert [client.socket.recv(10_000) for client in clients] == [expected[client] for client in clients]
    for client in clients:
        client.close()


def test_several_notifications_share_one_system_call_for_256_connections(ring: CountingRing, clients: list[Client]) -> None:
    deliveries, _ = overlapping(clients)
    assert write(FanOut(ring), *deliveries) == set()
    assert ring.calls == [256, 44]


def test_a_socket_that_takes_only_a_part_of_several_packets_gets_the_rest_before_anything_newer(
    fan_out: FanOut, clients: list[Client]
) -> None:
    crowd = clients[:20]
    before = encode_notification(b'"%b"' % (b"x" * 1_000), 1)
    large = encode_notification(b'"%b"' % (b"y" * 20_000), 2)
    # Every second client gets all three, and its buffer is full within the second.
    some = crowd[1::2]
    deliveries = [(before, connections(crowd)), (large, connections(some)), (packet(3), connections(crowd))]
    assert write(fan_out, *deliveries) == set()
    assert [client.websocket.unsent for client in crowd] == [False, True] * 10
    # The client reads, and the next packets come before the rest has been sent.
    begun = {client: client.socket.recv(1_000_000) for client in crowd}
    assert write(fan_out, (packet(4), connections(crowd)), (packet(5), connections(crowd))) == set()
    for client in crowd:
        its = [before, *([large] if client in some else []), packet(3), packet(4), packet(5)]
        expected = b"".join(each.frame for each in its)
        assert begun[client] + client.received(len(expected) - len(begun[client])) == expected


def test_with_several_packets_too_ended_and_slow_connections_are_returned_and_the_others_receive(
    fan_out: FanOut, clients: list[Client]
) -> None:
    gone, left, slow = clients[10], clients[280], clients[20]
    backlog = encode_notification(b'"%b"' % (b"x" * 60_000), 1)
    assert write(fan_out, (backlog, [slow.connection])) == set()
    gone.socket.close()
    left.websocket.abort()
    deliveries, expected = overlapping(clients)
    assert write(fan_out, *deliveries) == {gone.connection, left.connection, slow.connection}
    assert gone.losses == ["transport error"]
    assert slow.losses == ["slow consumer"]
    for client in clients:
        if client not in (gone, left, slow):
            assert client.received(len(expected[client])) == expected[client]


def test_with_several_packets_too_polling_and_recovering_connections_are_written_to(
    fan_out: FanOut, clients: list[Client]
) -> None:
    poller, polled = connection()
    recovering = clients[5]
    recovering.connection.hold()
    everybody = [poller, *connections(clients)]
    assert write(fan_out, (packet(2), everybody), (packet(3), connections(clients[:9])), (packet(4), everybody)) == set()
    assert numbers(polled) == [2, 4]
    recovering.connection.send_all([packet(1)])
    recovering.connection.release()
    for at, client in enumerate(clients):
        its = [1] * (client is recovering) + [2] + [3] * (at < 9) + [4]
        expected = b"".join(packet(number).frame for number in its)
        assert client.received(len(expected)) == expected
