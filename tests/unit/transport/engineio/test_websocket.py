"""A parked WebSocket over a real socket pair, in a real gevent hub."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from socket_server.transport.engineio import frames
from socket_server.transport.engineio import websocket as module
from socket_server.transport.engineio.limits import Limits
from socket_server.transport.engineio.websocket import WebSocket

MASK = b"\x01\x02\x03\x04"
LIMITS = Limits(max_message_bytes=100, send_backlog_bytes=100_000, auth_timeout_s=1, events_per_second=20)


class Owner:
    """Who the WebSocket belongs to; notes what it is told."""

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
    """A WebSocket with a small backlog, its client's socket, and its owner."""
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
        assert time.monotonic() < deadline, "it did not happen"
        gevent.sleep(0.002)


def received(sock: socket.socket, size: int) -> bytes:
    """Return what the client gets: so many bytes, or fewer up to the end."""
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


def test_pings_that_come_at_once_are_answered_at_once_each_with_its_payload(
    pair: tuple[WebSocket, socket.socket, Owner],
) -> None:
    websocket, client, owner = pair
    websocket.start()
    client.send(
        b"".join(client_frame(frames.PING, b"%d" % number) for number in range(5)) + client_frame(frames.TEXT, b"a")
    )
    assert received(client, 15) == b"".join(b"\x8a\x01%d" % number for number in range(5))
    assert owner.messages == ["a"]


def test_who_is_closed_is_not_answered_any_more(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
    websocket, client, owner = pair
    websocket.start()
    client.send(client_frame(frames.PING, b"x") * 60)
    until(lambda: owner.losses)
    assert struct.unpack(">BBH", received(client, 1_000)[:4])[::2] == (0x88, frames.POLICY_VIOLATION)


def test_what_the_kernel_does_not_take_waits_in_order(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
    websocket, client, owner = pair
    websocket.start()
    sent = [frames.encode(frames.BINARY, struct.pack(">I", number) * 100) for number in range(150)]
    assert all(websocket.send(frame) for frame in sent)
    assert websocket._backlog is not None, "the test needs a kernel buffer smaller than what it sends"
    data = b"".join(sent)
    assert received(client, len(data)) == data
    until(lambda: websocket._backlog is None)
    assert websocket._watch_write is None
    assert websocket._backlog_bytes == 0
    assert owner.losses == []
    assert owner.drains == 1
    assert websocket.send(b"\x8a\x00")
    gevent.sleep(0.01)
    assert owner.drains == 1, "nothing had to wait"


def test_a_slow_consumer_is_cut(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
    websocket, _, owner = pair
    websocket.start()
    frame = frames.encode(frames.BINARY, bytes(1_000))
    sent = 0
    while websocket.send(frame):
        sent += 1
        assert sent < 2_000
        assert websocket._backlog_bytes <= 100_000
    assert owner.losses == ["slow consumer"]
    assert not websocket.send(frame)
    assert not websocket.open


def test_one_frame_larger_than_the_backlog_may_be_is_not_cut_and_the_next_one_is(
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


def test_frames_larger_than_the_backlog_may_be_go_out_one_after_the_other(
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


def test_behind_a_small_frame_that_waits_a_large_one_is_cut(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
    websocket, _, owner = pair
    websocket.start()
    while not websocket.unsent:
        assert websocket.send(frames.encode(frames.BINARY, bytes(1_000)))
    assert not websocket.send(frames.encode(frames.BINARY, bytes(LIMITS.send_backlog_bytes)))
    assert owner.losses == ["slow consumer"]


def test_a_client_that_closes_gets_its_code_back(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
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
def test_a_violation_is_told_with_its_code(pair: tuple[WebSocket, socket.socket, Owner], data: bytes, code: int) -> None:
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


def test_what_waits_goes_out_before_the_close(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
    websocket, client, owner = pair
    websocket.start()
    frame = frames.encode(frames.BINARY, bytes(1_000))
    for _ in range(50):
        websocket.send(frame)
    websocket.close(1012, "restart")
    assert owner.losses == ["forced close"]
    assert not websocket.send(frame), "nothing after the close frame"
    data = frame * 50 + frames.encode_close(1012, "restart")
    assert received(client, len(data) + 1) == data


def test_a_client_that_ignores_the_close_is_cut_after_a_while(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
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


def test_an_owner_that_fails_loses_this_connection_and_no_other(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
    websocket, client, owner = pair
    websocket.start()
    client.send(client_frame(frames.TEXT, b"fail"))
    until(lambda: owner.losses == ["transport error"])
    gevent.sleep(0)  # the hub is alive


# What a client may cost


def test_a_client_that_leaves_a_message_half_sent_is_cut(
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


def test_a_client_whose_messages_keep_coming_is_not_cut_wherever_its_packets_end(
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


def test_a_client_that_sends_too_many_frames_is_cut(pair: tuple[WebSocket, socket.socket, Owner]) -> None:
    websocket, client, owner = pair
    websocket.start()
    for _ in range(6):
        client.send(client_frame(frames.PONG) * int(LIMITS.frame_burst / frames.CONTROL_WEIGHT / 5))
        gevent.sleep(0.005)
    until(lambda: owner.losses)
    assert struct.unpack(">H", received(client, 1_000)[2:4]) == (frames.POLICY_VIOLATION,)
