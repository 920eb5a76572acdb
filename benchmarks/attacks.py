"""The kinds of attack of benchmarks.hostile: what unauthenticated clients send, and a process that sends it."""

import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.servers import token
from benchmarks.swarm import masked

UPGRADE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_PING = b"\x89\x84\0\0\0\0ping"
_FRAGMENT = b"\x00\x80\0\0\0\0"

Step = Callable[[socket.socket], None]


@dataclass(frozen=True)
class Attack:
    """`sockets` connections, each opened by sending `hello`, then driven by `step` repeatedly; a lost one is reopened.

    hello: the bytes, or a function of the connection's number. settings: of the server. tls: the server speaks TLS.
    """

    name: str
    title: str
    sockets: int
    hello: bytes | Callable[[int], bytes]
    step: Step
    pause_s: float = 0.0
    settings: Mapping[str, str] = field(default_factory=dict)
    tls: bool = False


def _send(data: bytes) -> Step:
    def step(sock: socket.socket) -> None:
        sock.send(data)

    return step


def _nothing(sock: socket.socket) -> None:
    sock.setblocking(False)
    try:
        if not sock.recv(65_536):
            raise ConnectionError
    except BlockingIOError:
        pass


def _trickle(sock: socket.socket) -> None:
    sock.send(b"X")


def _polling(size: int) -> Step:
    def step(sock: socket.socket) -> None:
        sock.setblocking(True)
        sock.settimeout(3)
        sock.send(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = sock.recv(65_536)
        sid = json.loads(answer.partition(b"\r\n\r\n")[2][1:])["sid"]
        target = f"/socket.io/?EIO=4&transport=polling&sid={sid}"
        sock.send(f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(size // 65_536):
            sock.send(b"4" * 65_536)

    return step


def _api(headers: bytes, chunk: bytes, times: int) -> Step:
    def step(sock: socket.socket) -> None:
        sock.send(
            b"POST /broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + headers + b"\r\n\r\n"
        )
        for _ in range(times):
            sock.send(chunk)

    return step


def _noise(sock: socket.socket) -> None:
    sock.send(random.randbytes(4_096))


_CHUNK = b"10000\r\n" + b"[" * 65_536 + b"\r\n"

_DECLARES_200_MB = b"\x81\xff" + (200_000_000).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * 60_000
_TEXT_OF_1_MB = b"\x81\xff" + (1_000_000).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * 1_000_000
_HALF_A_HEAD = b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"
_CONNECT = masked(b"40")
_EVENTS = masked(b'42["ping"]') * 500
_COOKIES = b"Cookie: session=" + b"x" * 30_000 + b"; jwt=t; id=1\r\n"
_HANDSHAKE = b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\n"


def _handshakes(headers: bytes, at_once: int) -> Step:
    """Send many polling handshakes on one connection, and read the answers."""
    request = (_HANDSHAKE + headers + b"\r\n") * at_once

    def step(sock: socket.socket) -> None:
        sock.setblocking(True)
        sock.settimeout(10)
        sock.sendall(request)
        answers = 0
        while answers < at_once:
            data = sock.recv(1_048_576)
            if not data:
                raise ConnectionError
            answers += data.count(b"HTTP/1.1 ")

    return step


def _partial_event(number: int) -> bytes:
    """Authenticate, and send a binary event whose attachment never arrives: 64 KB of JSON with 20,000 objects."""
    connect = b"40" + json.dumps({"token": token(f"hostile-{number // 20}")}).encode()
    return UPGRADE + masked(connect) + masked(b'451-["x",' + b",".join([b"{}"] * 21_000) + b"]")


_held: dict[socket.socket, list[socket.socket]] = {}


def _three_descriptors(sock: socket.socket) -> None:
    """Open a polling session that costs three: a poll that waits, an idle connection, and half an upgrade."""
    if sock in _held:
        _nothing(sock)
        return
    sock.setblocking(True)
    sock.settimeout(3)
    address = sock.getpeername()
    sock.sendall(_HANDSHAKE + b"\r\n")
    sid = json.loads(sock.recv(65_536).partition(b"\r\n\r\n")[2][1:])["sid"].encode()
    others = _held[sock] = []
    for request in (
        b"GET /socket.io/?EIO=4&transport=polling&sid=%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % sid,
        UPGRADE.replace(b"transport=websocket", b"transport=websocket&sid=" + sid) + masked(b"2probe"),
    ):
        other = socket.create_connection(address, 3)
        other.sendall(request)
        others.append(other)


ATTACKS = (
    Attack("none", "nothing (the reference)", 0, b"", _nothing),
    Attack("declared", "frames that declare 200 MB", 50, UPGRADE, _send(_DECLARES_200_MB)),
    Attack("texts", "text frames of 1 MB", 20, UPGRADE, _send(_TEXT_OF_1_MB)),
    Attack("slow", "500 slow handshakes", 500, _HALF_A_HEAD, _trickle, 1.0),
    Attack("idle", "5,000 connections that send nothing", 5_000, b"", _nothing, 1.0),
    Attack("silent", "1,000 that never authenticate", 1_000, UPGRADE + _CONNECT, _nothing, 1.0),
    Attack("pings", "control frames whose answers are never read", 50, UPGRADE, _send(_PING * 2_000)),
    Attack("fragments", "endless fragments", 50, UPGRADE + b"\x01\x80\0\0\0\0", _send(_FRAGMENT * 3_000)),
    Attack("events", "a flood of events, its answers never read", 50, UPGRADE + _CONNECT, _send(_EVENTS)),
    Attack("polling", "polling bodies of 10 MB", 20, b"", _polling(10_485_760)),
    Attack("huge", "API bodies of 100 MB", 20, b"", _api(b"Content-Length: 104857600", b"x" * 65_536, 100)),
    Attack("chunked", "chunked, deeply nested API bodies", 20, b"", _api(b"Transfer-Encoding: chunked", _CHUNK, 100)),
    Attack("noise", "random bytes", 50, b"", _noise),
    Attack(
        "redaction",
        "request lines to redact, with an access log",
        4,
        b"",
        _send(b"GET /" + b"eyA" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        settings={"GUNICORN_CMD_ARGS": "--access-logfile -"},
    ),
    Attack("binary", "400 binary events of 64 KB without their attachment", 400, _partial_event, _nothing, 1.0),
    Attack("handshakes", "polling handshakes with cookies of 30 KB", 4, b"", _handshakes(_COOKIES, 20)),
    Attack("bare", "polling handshakes without end", 4, b"", _handshakes(b"", 200)),
    Attack(
        "foreign",
        "no-cors handshakes of foreign pages",
        4,
        b"",
        _handshakes(b"Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n", 200),
        settings={"MAX_CONNECTIONS_PER_IP": "250"},
    ),
    Attack("tls", "5,000 TCP connections without a TLS handshake", 5_000, b"", _nothing, 1.0, tls=True),
    Attack("descriptors", "1,500 polling sessions with three descriptors each", 1_500, b"", _three_descriptors, 1.0),
)


def attack(name: str, port: int, seconds: float) -> None:
    """Run one attack against a server on `port` for `seconds`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.nice(10)
    chosen = next(each for each in ATTACKS if each.name == name)
    sockets: list[socket.socket | None] = [None] * chosen.sockets
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for index in range(len(sockets)):
            try:
                sock = sockets[index]
                if sock is None:
                    sock = sockets[index] = socket.create_connection(("127.0.0.1", port), 2)
                    hello = chosen.hello if isinstance(chosen.hello, bytes) else chosen.hello(index)
                    if hello:
                        sock.sendall(hello)
                    sock.setblocking(False)
                chosen.step(sock)
            except BlockingIOError:
                pass
            except (OSError, ValueError, KeyError, IndexError):
                lost = sockets[index]
                sockets[index] = None
                if lost is not None:
                    for each in (lost, *_held.pop(lost, ())):
                        each.close()
            if time.monotonic() > ends:
                break
        time.sleep(chosen.pause_s or 0.01)
