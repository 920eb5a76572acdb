"""Clients written from the protocol documents, without a library for Engine.IO or Socket.IO.

Sources: github.com/socketio/engine.io-protocol (version 4), github.com/socketio/socket.io-protocol (version 5), RFC 6455.
Both transports have one interface: `send` and `receive` whole packets as they are on the wire.
"""

import base64
import contextlib
import json
import os
import socket
import ssl
import struct
from collections.abc import Mapping
from typing import Any, Self

import requests
import websocket

from tests.servers import RunningServer

TIMEOUT_S = 10.0
RECORD_SEPARATOR = "\x1e"

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

TRANSPORTS = ("websocket", "polling")


class Client:
    """One Engine.IO session and, after connect(), its Socket.IO connection. Answers PINGs while it reads."""

    handshake: dict[str, Any]
    answers_pings = True
    closed_politely = False  # the server sent a CLOSE packet

    def send(self, packet: str | bytes) -> None:
        raise NotImplementedError

    def _receive(self) -> str | bytes | None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def receive(self) -> str | bytes | None:
        """Return the next packet that is no PING or NOOP; None if the transport has closed."""
        while True:
            packet = self._receive()
            if packet == "2" and self.answers_pings:
                self.send("3")
            elif packet == "1":
                self.closed_politely = True
                return None
            elif packet != "6":
                return packet

    def connect(self, auth: Any = None) -> dict[str, Any]:
        """Send a CONNECT and return the payload of the answer."""
        self.send("40" + ("" if auth is None else json.dumps(auth)))
        answer = self.receive()
        assert isinstance(answer, str), answer
        assert answer.startswith("40{"), answer
        payload: dict[str, Any] = json.loads(answer[2:])
        return payload

    def sign_in(self, auth: Any) -> dict[str, Any]:
        """CONNECT with this `auth`, and return the payload of auth_success."""
        self.connect(auth)
        return self.success()

    def success(self) -> dict[str, Any]:
        event = self.event()
        assert event[0] == "auth_success", event
        payload: dict[str, Any] = event[1]
        return payload

    def refusal(self) -> tuple[str, str]:
        """Return (message, code) of the next event, an auth_error, which DISCONNECT and the close must follow."""
        event = self.event()
        assert event[0] == "auth_error", event
        assert set(event[1]) == {"message", "code"}
        assert self.receive() == "41"
        assert self.receive() is None
        return event[1]["message"], event[1]["code"]

    def emit(self, name: str, *arguments: Any, ack: int | None = None) -> None:
        self.send("42" + ("" if ack is None else str(ack)) + json.dumps([name, *arguments]))

    def event(self) -> list[Any]:
        """Return the next packet, which must be an EVENT, as [name, argument, ...]."""
        packet = self.receive()
        assert isinstance(packet, str), packet
        assert packet.startswith("42["), packet
        event: list[Any] = json.loads(packet[2:])
        return event

    def rest(self) -> list[str | bytes]:
        """Return every packet until the transport closes."""
        packets = []
        while (packet := self.receive()) is not None:
            packets.append(packet)
        return packets

    def pong(self) -> None:
        """Send the event `ping`, and assert that its answer is the next packet."""
        self.emit("ping")
        assert self.event() == ["pong", None]


class WebSocketClient(Client):
    """A client over WebSocket, without polling before it."""

    def __init__(self, server: RunningServer, headers: Mapping[str, str] | None = None, query: str = "") -> None:
        scheme = "wss" if server.scheme == "https" else "ws"
        self.close_code: int | None = None
        self.socket = websocket.create_connection(
            f"{scheme}://127.0.0.1:{server.port}/socket.io/?EIO=4&transport=websocket{query}",
            timeout=TIMEOUT_S,
            header=dict(headers or {}),
            suppress_origin=True,
            sslopt={"cert_reqs": ssl.CERT_NONE, "check_hostname": False},
        )
        self.handshake = {}
        if "sid=" not in query:
            opening = self._receive()
            assert isinstance(opening, str)
            assert opening.startswith("0{"), opening
            self.handshake = json.loads(opening[1:])

    def send(self, packet: str | bytes) -> None:
        with contextlib.suppress(OSError, websocket.WebSocketException):  # the server may have closed
            if isinstance(packet, bytes):
                self.socket.send_binary(packet)
            else:
                self.socket.send(packet)

    def _receive(self) -> str | bytes | None:
        try:
            opcode, data = self.socket.recv_data()
        except (websocket.WebSocketConnectionClosedException, ConnectionResetError, BrokenPipeError):
            return None
        if opcode == CLOSE:
            self.close_code = struct.unpack("!H", data[:2])[0] if len(data) >= 2 else None
            return None
        return data.decode() if opcode == TEXT else bytes(data)

    def close(self) -> None:
        self.socket.shutdown()


class PollingClient(Client):
    """A client over polling."""

    def __init__(self, server: RunningServer, headers: Mapping[str, str] | None = None, query: str = "") -> None:
        self.http = requests.Session()
        self.http.verify = False
        self.http.headers.update(headers or {})
        self.url = f"{server.url}/socket.io/?EIO=4&transport=polling{query}"
        self._packets: list[str] = []
        opening = self.http.get(self.url, timeout=TIMEOUT_S)
        assert opening.status_code == 200, opening.text
        assert opening.text.startswith("0{"), opening.text
        first, *self._packets = opening.text.split(RECORD_SEPARATOR)
        self.handshake = json.loads(first[1:])
        self.session_url = f"{self.url}&sid={self.handshake['sid']}"

    def send(self, packet: str | bytes) -> None:
        body = packet if isinstance(packet, str) else "b" + base64.b64encode(packet).decode()
        self.post(body)

    def post(self, body: str | bytes) -> requests.Response:
        data = body.encode() if isinstance(body, str) else body
        headers = {"Content-Type": "text/plain;charset=UTF-8"}
        return self.http.post(self.session_url, data=data, headers=headers, timeout=TIMEOUT_S)

    def poll(self) -> requests.Response:
        return self.http.get(self.session_url, timeout=TIMEOUT_S)

    def _receive(self) -> str | bytes | None:
        if not self._packets:
            answer = self.poll()
            if answer.status_code != 200:
                return None
            answer.encoding = "utf-8"
            self._packets = answer.text.split(RECORD_SEPARATOR)
        packet = self._packets.pop(0)
        return base64.b64decode(packet[1:]) if packet.startswith("b") else packet

    def close(self) -> None:
        with contextlib.suppress(requests.RequestException):
            self.post("1")
        self.http.close()


def client(
    server: RunningServer, transport: str = "websocket", headers: Mapping[str, str] | None = None, query: str = ""
) -> Client:
    """Open an Engine.IO session over this transport."""
    kind: type[WebSocketClient | PollingClient] = WebSocketClient if transport == "websocket" else PollingClient
    return kind(server, headers, query)


def encode_frame(opcode: int, payload: bytes, *, fin: bool = True, mask: bool = True, reserved: int = 0) -> bytes:
    """Return one frame as a client sends it (RFC 6455 section 5.2)."""
    size = len(payload)
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    flag = 0x80 if mask else 0
    if size < 126:
        head = bytes((first, flag | size))
    elif size < 65_536:
        head = struct.pack("!BBH", first, flag | 126, size)
    else:
        head = struct.pack("!BBQ", first, flag | 127, size)
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))


class RawWebSocket:
    """A WebSocket over a plain socket, which can send any bytes and sees every frame."""

    def __init__(
        self,
        port: int,
        *,
        headers: Mapping[str, str] | None = None,
        query: str = "EIO=4&transport=websocket",
        behind: bytes = b"",
        sock: socket.socket | None = None,
        receive_buffer: int = 0,
    ) -> None:
        """behind: bytes sent together with the upgrade request. headers: replace those of a valid handshake."""
        if sock is None:
            sock = socket.socket()
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.settimeout(TIMEOUT_S)
            sock.connect(("127.0.0.1", port))
        self.sock = sock
        fields = {
            "Host": f"127.0.0.1:{port}",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            **(headers or {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
        self.sock.sendall(f"GET /socket.io/?{query} HTTP/1.1\r\n{head}\r\n".encode() + behind)
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            received = self.sock.recv(65_536)
            assert received, f"no answer to the upgrade request: {self.buffer!r}"
            self.buffer += received
        answer, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        status_line, *lines = answer.decode().split("\r\n")
        self.status = int(status_line.split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, text: str) -> None:
        self.sock.sendall(encode_frame(TEXT, text.encode()))

    def frame(self) -> tuple[int, bytes] | None:
        """Return (opcode, payload) of the next frame; None at the end of the stream."""
        head = self._take(2)
        if head is None:
            return None
        assert not head[1] & 0x80, "a server never masks"
        size = head[1] & 0x7F
        if size == 126:
            size = struct.unpack("!H", self._take(2) or b"")[0]
        elif size == 127:
            size = struct.unpack("!Q", self._take(8) or b"")[0]
        payload = self._take(size)
        return None if payload is None else (head[0] & 0x0F, payload)

    def text(self) -> str:
        """Return the next text message."""
        frame = self.frame()
        assert frame is not None, "the connection ended"
        assert frame[0] == TEXT, frame
        return frame[1].decode()

    def close_code(self) -> int:
        """Read to the CLOSE frame and return its code. No frame may follow it."""
        while (frame := self.frame()) is not None:
            if frame[0] == CLOSE:
                assert self.frame() is None
                return int.from_bytes(frame[1][:2], "big")
        raise AssertionError("the connection ended without a CLOSE frame")

    def sign_in(self, token: str) -> None:
        """Read the OPEN packet, CONNECT and wait for auth_success."""
        assert self.text().startswith("0{")
        self.send("40" + json.dumps({"token": token}))
        assert self.text().startswith("40{")
        assert self.text().startswith('42["auth_success"')

    def reset(self) -> None:
        """End with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _take(self, size: int) -> bytes | None:
        while len(self.buffer) < size:
            try:
                received = self.sock.recv(65_536)
            except ConnectionResetError:
                return None
            if not received:
                return None
            self.buffer += received
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken
