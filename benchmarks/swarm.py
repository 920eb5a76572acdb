"""The load: many raw WebSocket clients in one thread, by epoll. It is cheap, and it counts every delivery.

No client library: a client is a socket and a state. Notifications are counted by their marker in complete frames only.
"""

import json
import os
import select
import socket
import struct
import time
from collections.abc import Iterable
from typing import Protocol

MARKER = b'["notification",'
_PING = b"\x81\x012"
_READ = 65_536


def masked(text: bytes) -> bytes:
    """Return a client's text frame (RFC 6455 section 5.3), masked with zeros."""
    size = len(text)
    head = struct.pack("!BB", 0x81, 0x80 | size) if size < 126 else struct.pack("!BBH", 0x81, 0x80 | 126, size)
    return head + b"\0\0\0\0" + text


PONG = masked(b"3")


class Meanwhile(Protocol):
    """What goes on beside the counting, in the same loop."""

    def fileno(self) -> int:
        """What becomes readable when step() has something to do."""

    def step(self) -> None:
        """Do it. Must not block."""


class Swarm:
    """Clients of one server. connect() opens and authenticates them; count() receives what they get."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._partial: dict[int, bytes] = {}
        self.received = 0
        self.lost = 0

    def __len__(self) -> int:
        return len(self._sockets)

    def connect(self, tokens: Iterable[str | dict[str, str]], window: int = 64) -> float:
        """Open one authenticated connection for each token (or `auth`), `window` at a time; return the seconds it took."""
        todo = iter(enumerate(tokens, len(self._sockets)))
        waiting: dict[int, tuple[bytes, bytes]] = {}  # fd -> (what it sends after OPEN, what it has received)
        started = time.perf_counter()
        done = False
        while True:
            while not done and len(waiting) < window:
                item = next(todo, None)
                if item is None:
                    done = True
                    break
                fd, hello = self._open(*item)
                waiting[fd] = (hello, b"")
            if not waiting:
                return time.perf_counter() - started
            events = self._epoll.poll(30)
            if not events:
                raise RuntimeError(f"{len(waiting)} of {len(self._sockets)} clients were not served within 30 s")
            for fd, _ in events:
                if fd in waiting:
                    self._greet(fd, waiting)
                else:
                    self._receive(fd)

    def _open(self, index: int, token: str | dict[str, str]) -> tuple[int, bytes]:
        sock = socket.socket()
        # 28,000 ports an address: the next 20,000 clients come from the next loopback address.
        sock.bind((f"127.0.0.{1 + index // 20_000}", 0))
        sock.connect(("127.0.0.1", self._port))
        fd = sock.fileno()
        self._sockets[fd] = sock
        sock.send(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        sock.setblocking(False)
        self._epoll.register(fd, select.EPOLLIN)
        return fd, masked(b"40" + json.dumps({"token": token} if isinstance(token, str) else token).encode())

    def _greet(self, fd: int, waiting: dict[int, tuple[bytes, bytes]]) -> None:
        hello, received = waiting[fd]
        data = self._sockets[fd].recv(_READ)
        if not data:
            raise RuntimeError(f"a client was refused: {received[:300]!r}")
        received += data
        if hello and b'"pingInterval"' in received:
            self._sockets[fd].send(hello)
            waiting[fd] = (b"", b"")
        elif b"auth_success" in received:
            del waiting[fd]
            self.received += received.count(MARKER)  # a replay follows at once
        elif b"auth_error" in received:
            raise RuntimeError(f"a client was refused: {received[:300]!r}")
        else:
            waiting[fd] = (hello, received)

    def _receive(self, fd: int) -> int:
        try:
            data = self._sockets[fd].recv(_READ)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if not data:
            self.lost += 1
            self._epoll.unregister(fd)
            self._sockets.pop(fd).close()
            return 0
        if fd in self._partial:
            data = self._partial.pop(fd) + data
        # A ping may lie behind a notification, or before one where this reader is late. No JSON holds its bytes.
        if _PING in data:
            self._sockets[fd].send(PONG)
            data = data.replace(_PING, b"")
        if not data or data.endswith(b"]"):
            found = data.count(MARKER)
            self.received += found
            return found
        self._partial[fd] = data
        return 0

    def count(
        self,
        wanted: int,
        timeout_s: float = 60.0,
        meanwhile: Meanwhile | None = None,
        arrivals: list[float] | None = None,
    ) -> float:
        """Receive until `wanted` notifications are in; return the time of the last one. Raises TimeoutError.

        meanwhile: has a step to take wherever it is ready. arrivals: gets the time of each.
        """
        deadline = time.perf_counter() + timeout_s
        got = 0
        beside = -1 if meanwhile is None else meanwhile.fileno()
        if meanwhile is not None:
            self._epoll.register(beside, select.EPOLLIN)
        while got < wanted:
            for fd, _ in self._epoll.poll(0.05):
                if fd == beside:
                    continue
                found = self._receive(fd)
                got += found
                if arrivals is not None:
                    arrivals += [time.perf_counter()] * found
            if meanwhile is not None:
                meanwhile.step()
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{got} of {wanted} notifications within {timeout_s} s")
        if meanwhile is not None:
            self._epoll.unregister(beside)
        return time.perf_counter()

    def only_listen(self) -> None:
        """Have every client acknowledge when it reads, as one does that has only listened for a while.

        To the kernel a client that has just spoken is interactive until it owes an acknowledgement for 40 ms. Up to then
        every second frame is acknowledged at once, in the server's `send` and its processor time; afterwards when the
        client reads, in its own. A server that sends the second frame within 40 ms would keep its clients interactive, and
        pay for them; a slower one would not. Source: tcp(7), TCP_QUICKACK, which ends that state.
        """
        for sock in self._sockets.values():
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def first(self) -> socket.socket:
        """Return the socket of the client that connected first."""
        return next(iter(self._sockets.values()))

    def drain(self, fd: int) -> None:
        """Receive what one client has got."""
        self._receive(fd)

    def take_in(self) -> None:
        """Receive what is there, without waiting."""
        for fd, _ in self._epoll.poll(0):
            self._receive(fd)

    def rest(self, seconds: float) -> None:
        """Stay connected, answer heartbeats."""
        ends = time.perf_counter() + seconds
        while (left := ends - time.perf_counter()) > 0:
            for fd, _ in self._epoll.poll(min(left, 0.5)):
                self._receive(fd)

    def close(self) -> None:
        for sock in self._sockets.values():
            # A reset leaves no port in TIME_WAIT: the next server of the run gets a machine as fresh as this one did.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        self._sockets.clear()
        self._epoll.close()


class Publisher:
    """One keep-alive HTTP connection of a back end."""

    def __init__(self, port: int, key: str, path: str = "/broadcast") -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + (
            f"Authorization: Bearer {key}\r\n"
        )
        self._received = b""

    def request(self, body: bytes) -> bytes:
        """Return the whole request for a body."""
        return f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def send(self, request: bytes) -> None:
        self.sock.sendall(request)

    def answered(self) -> bool:
        """Read what there is; say whether a whole response is in. Raises RuntimeError where it is not a 200."""
        data = self.sock.recv(_READ)
        if not data:
            raise RuntimeError("the server closed a publisher's connection")
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(self._received[:300].decode(errors="replace"))
        lower = head.lower()
        if b"content-length:" in lower:
            if len(body) < int(lower.split(b"content-length:")[1].split(b"\r\n")[0]):
                return False
        elif not body.endswith(b"0\r\n\r\n"):
            return False
        self._received = b""
        return True

    def post(self, request: bytes) -> None:
        self.send(request)
        while not self.answered():
            pass

    def close(self) -> None:
        self.sock.close()


def pin(core: int) -> None:
    """Keep this process on one core, where the machine has several."""
    if os.cpu_count() or core == 0:
        os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})
