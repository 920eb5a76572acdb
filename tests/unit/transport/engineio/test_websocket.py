"""A WebSocket over a real socket pair, in a real gevent hub."""

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from socket_server.transport.engineio import frames
from socket_server.transport.engineio import websocket as module
from socket_server.transport.engineio.frame_reader import CONTROL_WEIGHT
from socket_server.transport.engineio.limits import Limits
from socket_server.transport.engineio.websocket import WebSocket

MASK = b"\x01\x02\x03\x04"
LIMITS = Limits(max_message_bytes=100, send_backlog_bytes=100_000, auth_timeout_s=1, events_per_second=20)


class Owner:
    """The Receiver of the WebSocket. Records its calls."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.losses: list[str] = []
        self.drains = 0

    def message(self, websocket: WebSocket, data: str | bytes) -> None:
        self.messages.append(data)
        if data == "fail":
            raise RuntimeError("on purpose")

    def drained(self, websocket: WebSocket) -> None:
        assert not websocket.unsent
        self.drains += 1

    def lost(self, websocket: WebSocket, reason: str) -> None:
        self.losses.append(reason)


def client_frame(opcode: int, payload: bytes = b"") -> bytes:
    return bytes((0x80 | opcode, 0x80 | len(payload))) + MASK + frames.unmask(payload, MASK)


@pytest.fixture
def pair() -> Iterator[tuple[WebSocket, socket.socket, Owner]]:
    """A WebSocket with a small send buffer, its client's socket, and its owner."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    owner = Owner()
    websocket = WebSocket(ours, owner, LIMITS)
    yield websocket, theirs, owner
    websocket.abort()
    theirs.close()


def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come"
        gevent.sleep(0.002)


def received(sock: socket.socket, size: int) -> bytes:
    """Return what the client receives: this number of bytes, or fewer if the stream ends."""
    data = b""
    deadline = time.monotonic() + 10
    while len(data) < size and time.monotonic() < deadline:
        try:
            more = sock.recv(65_536)
        except BlockingIOError:
            gevent.sleep(0.002)
            continue
        if not more:
            break
        data += more
    return data


def test_messages_reach_the_owner_in_order(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
    websocket, client, owner = pair
    websocket.start(client_frame(frames.TEXT, b"came with the handshake"))
    client.send(client_frame(frames.TEXT, b"a") + client_frame(frames.BINARY, b"b")[:3])
    until(lambda: len(owner.messages) == 2)
    client.send(client_frame(frames.BINARY, b"b")[3:])
    until(lambda: len(owner.messages) == 3)
    assert owner.messages == ["came with the handshake", "a", b"b"]


def test_a_paused_connection_reads_nothing_until_it_is_resumed(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
    websocket, client, owner = pair
    websocket.start()
    websocket.pause()
    client.send(client_frame(frames.TEXT, b"a"))
    gevent.sleep(0.05)
    assert owner.messages == []
    websocket.resume()
    until(lambda: owner.messages == ["a"])


def test_a_ping_is_answered_with_its_payload(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
    websocket, client, _ = pair
    websocket.start()
    client.send(client_frame(frames.PING, b"hello"))
    assert received(client, 7) == b"\x8a\x05hello"


def test_pings_that_arrive_together_are_each_answered_in_one_write(
    pair: tuple[WebSocket, socket.socket, Owner],
) -> None:
    websocket, client, owner = pair
    websocket.start()
    client.send(
        b"".join(client_frame(frames.PING, b"%d" % number) for number in range(5)) + client_frame(frames.TEXT, b"a")
    )
    assert received(client, 15) == b"".join(b"\x8a\x01%d" % number for number in range(5))
    assert owner.messages == ["a"]


def test_the_pings_of_a_client_that_is_closed_are_not_answered(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
    websocket, client, owner = pair
    websocket.start()
    client.send(client_frame(frames.PING, b"x") * 60)
    until(lambda: owner.losses)
    assert struct.unpack(">BBH", received(client, 1_000)[:4])[::2] == (0x88, frames.POLICY_VIOLATION)


def test_frames_that_the_kernel_does_not_take_are_buffered_in_order(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
    websocket, client, owner = pair
    websocket.start()
    sent = [frames.encode(frames.BINARY, struct.pack(">I", number) * 100) for number in range(150)]
    assert all(websocket.send(frame) for frame in sent)
    assert websocket.unsent, "the test needs a kernel buffer smaller than what it sends"
    data = b"".join(sent)
    assert received(client, len(data)) == data
    until(lambda: not websocket.unsent)
    assert owner.losses == []
    assert owner.drains == 1
    assert websocket.send(b"\x8a\x00")
    gevent.sleep(0.01)
    assert owner.drains == 1, "nothing was buffered"


def test_a_slow_consumer_is_closed(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
    websocket, _, owner = pair
    websocket.start()
    frame = frames.encode(frames.BINARY, bytes(1_000))
    sent = 0
    while websocket.send(frame):
        sent += 1
        assert sent < 2_000
        assert websocket._send_buffer is None or websocket._send_buffer.size <= 100_000
    assert owner.losses == ["slow consumer"]
    assert not websocket.send(frame)
    assert not websocket.open


def test_one_frame_may_be_larger_than_the_limit_and_the_next_may_not(
    pair: tuple[WebSocket, socket.socket, Owner],
) -> None:
    websocket, _, owner = pair
    websocket.start()
    large = frames.encode(frames.BINARY, bytes(3 * LIMITS.send_backlog_bytes))
    assert websocket.send(large)
    assert websocket.unsent
    assert owner.losses == []
    assert not websocket.send(b"\x8a\x00")
    assert owner.losses == ["slow consumer"]
    assert not websocket.open


def test_frames_larger_than_the_limit_are_sent_one_after_the_other(
    pair: tuple[WebSocket, socket.socket, Owner],
) -> None:
    websocket, client, owner = pair
    websocket.start()
    large = frames.encode(frames.BINARY, bytes(3 * LIMITS.send_backlog_bytes))
    for count in range(1, 4):
        assert websocket.send(large)
        assert received(client, len(large)) == large
        until(lambda count=count: owner.drains == count)  # type: ignore[misc]
    assert owner.losses == []


def test_a_frame_behind_a_buffered_one_counts_towards_the_limit(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
    websocket, _, owner = pair
    websocket.start()
    while not websocket.unsent:
        assert websocket.send(frames.encode(frames.BINARY, bytes(1_000)))
    assert not websocket.send(frames.encode(frames.BINARY, bytes(LIMITS.send_backlog_bytes)))
    assert owner.losses == ["slow consumer"]


def test_a_close_is_answered_with_its_code(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
    websocket, client, owner = pair
    websocket.start()
    client.send(client_frame(frames.CLOSE, struct.pack(">H", 1001)))
    assert received(client, 100) == b"\x88\x02" + struct.pack(">H", 1001)
    assert owner.losses == ["transport close"]
    assert not websocket.open
    client.close()
    until(lambda: websocket._sock is None)
    assert owner.losses == ["transport close"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x01a", frames.PROTOCOL_ERROR),
        (client_frame(frames.TEXT, b"\xff"), frames.INVALID_PAYLOAD),
        (b"\x81\xfe\xff\xff", frames.TOO_BIG),
    ],
)
def test_a_violation_is_closed_with_its_code(pair: tuple[WebSocket, socket.socket, Owner], data: bytes, code: int) -> None:
    websocket, client, owner = pair
    websocket.start()
    client.send(data)
    answer = received(client, 1_000)
    assert answer[0] == 0x88
    assert struct.unpack(">H", answer[2:4]) == (code,)
    assert owner.losses == ["parse error"]


def test_a_client_that_vanishes_is_lost_once(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
    websocket, client, owner = pair
    websocket.start()
    client.close()
    until(lambda: owner.losses)
    websocket.close()
    websocket.abort()
    assert owner.losses == ["transport close"]


def test_buffered_frames_are_sent_before_the_close_frame(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
    websocket, client, owner = pair
    websocket.start()
    frame = frames.encode(frames.BINARY, bytes(1_000))
    for _ in range(50):
        websocket.send(frame)
    websocket.close(1012, "restart")
    assert owner.losses == ["forced close"]
    assert not websocket.send(frame), "nothing is sent after the close frame"
    data = frame * 50 + frames.encode_close(1012, "restart")
    assert received(client, len(data) + 1) == data


def test_a_client_that_ignores_the_close_frame_is_disconnected_after_a_while(
    pair: tuple[WebSocket, socket.socket, Owner],
) -> None:
    websocket, client, _ = pair
    websocket.start()
    websocket.close(1000)
    deadline = time.monotonic() + 10
    while websocket._sock is not None and time.monotonic() < deadline:
        try:
            client.send(client_frame(frames.TEXT, b"still here"))
        except (BlockingIOError, BrokenPipeError):
            pass
        gevent.sleep(0.01)
    assert websocket._sock is None


def test_an_exception_in_the_receiver_ends_this_connection_and_no_other(
    pair: tuple[WebSocket, socket.socket, Owner],
) -> None:
    websocket, client, owner = pair
    websocket.start()
    client.send(client_frame(frames.TEXT, b"fail"))
    until(lambda: owner.losses == ["transport error"])
    gevent.sleep(0)  # the hub still runs


# Limits


def test_a_client_that_leaves_a_message_half_sent_is_closed(
    pair: tuple[WebSocket, socket.socket, Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HALF_SENT_S", 0.1)
    websocket, client, owner = pair
    websocket.start()
    client.send(client_frame(frames.TEXT, b"whole"))
    gevent.sleep(0.3)
    assert owner.losses == []
    client.send(client_frame(frames.TEXT, b"half")[:-1])
    until(lambda: owner.losses)
    assert struct.unpack(">H", received(client, 1_000)[2:4]) == (frames.POLICY_VIOLATION,)


def test_a_client_whose_messages_complete_is_not_closed_wherever_its_packets_end(
    pair: tuple[WebSocket, socket.socket, Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HALF_SENT_S", 0.3)
    websocket, client, owner = pair
    websocket.start()
    message = client_frame(frames.TEXT, b"a message")
    client.send(message[:4])
    for count in range(1, 16):
        gevent.sleep(0.05)
        client.send(message[4:] + message[:4])
        until(lambda count=count: len(owner.messages) == count or owner.losses)  # type: ignore[misc]
    assert owner.losses == []


def test_a_client_that_sends_too_many_frames_is_closed(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
    websocket, client, owner = pair
    websocket.start()
    for _ in range(6):
        client.send(client_frame(frames.PONG) * int(LIMITS.frame_burst / CONTROL_WEIGHT / 5))
        gevent.sleep(0.005)
    until(lambda: owner.losses)
    assert struct.unpack(">H", received(client, 1_000)[2:4]) == (frames.POLICY_VIOLATION,)


@pytest.mark.parametrize("begun", [client_frame(frames.TEXT, b"half")[:-1], bytes((frames.TEXT, 0x80)) + MASK])
def test_control_frames_do_not_extend_the_time_of_a_half_sent_message(
    pair: tuple[WebSocket, socket.socket, Owner], monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(module, "HALF_SENT_S", 0.2)
    websocket, client, owner = pair
    websocket.start()
    client.send(begun)
    ends = time.monotonic() + 5
    while not owner.losses and time.monotonic() < ends:
        with contextlib.suppress(OSError):
            client.send(client_frame(frames.PING, b"x") if begun[0] == frames.TEXT else b"")
        gevent.sleep(0.05)
    assert owner.losses == ["forced close"]


def test_control_frames_that_arrive_in_pieces_are_no_half_sent_message(
    pair: tuple[WebSocket, socket.socket, Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HALF_SENT_S", 0.2)
    websocket, client, owner = pair
    websocket.start()
    ping = client_frame(frames.PING, b"x")
    client.send(ping[:3])
    for _ in range(10):
        gevent.sleep(0.05)
        client.send(ping[3:] + ping[:3])
    assert owner.losses == []


def test_an_aborted_connection_is_closed_without_a_close_frame(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
    websocket, client, owner = pair
    websocket.start()
    websocket.abort("evicted")
    assert owner.losses == ["evicted"]
    assert received(client, 1) == b""
