"""The load generator: many raw WebSocket clients in one thread, by epoll. It counts every delivery.

No client library: a client is a socket and a few bytes of state. A notification counts when its frame is complete.
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
    """Return a text frame of a client, masked with zeros (RFC 6455 section 5.3)."""
    size = len(text)
    head = struct.pack("!BB", 0x81, 0x80 | size) if size < 126 else struct.pack("!BBH", 0x81, 0x80 | 126, size)
    return head + b"\0\0\0\0" + text


PONG = masked(b"3")


class SideTask(Protocol):
    """Work that count() does in its event loop beside receiving."""

    def fileno(self) -> int:
        """Return a file descriptor that is readable when step() has work."""

    def step(self) -> None:
        """Do the work that is ready. Must not block."""


class Swarm:
    """Clients of one server. connect() opens and authenticates them; count() receives notifications."""

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
        """Open an authenticated connection for each token or `auth` object, `window` at a time; return the seconds it took.

        Raises RuntimeError if a client is refused or not served within 30 s.
        """
        todo = iter(enumerate(tokens, len(self._sockets)))
        waiting: dict[int, tuple[bytes, bytes]] = {}  # fd -> (what it sends after OPEN, what it has received so far)
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
        # An address has about 28,000 ports: every 20,000 clients use the next loopback address.
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
            self.received += received.count(MARKER)  # a replay may follow in the same read
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
        # A ping may lie before or after a notification in one read. Its bytes occur in no JSON text.
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
        side_task: SideTask | None = None,
        arrivals: list[float] | None = None,
    ) -> float:
        """Receive until `wanted` notifications are complete; return the time (perf_counter) of the last one.

        side_task: its step() is called in between. arrivals: gets the time of each notification.
        Raises TimeoutError after `timeout_s` seconds.
        """
        deadline = time.perf_counter() + timeout_s
        got = 0
        side_fd = -1 if side_task is None else side_task.fileno()
        if side_task is not None:
            self._epoll.register(side_fd, select.EPOLLIN)
        while got < wanted:
            for fd, _ in self._epoll.poll(0.05):
                if fd == side_fd:
                    continue
                found = self._receive(fd)
                got += found
                if arrivals is not None:
                    arrivals += [time.perf_counter()] * found
            if side_task is not None:
                side_task.step()
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{got} of {wanted} notifications within {timeout_s} s")
        if side_task is not None:
            self._epoll.unregister(side_fd)
        return time.perf_counter()

    def end_interactive_state(self) -> None:
        """Put every client into the TCP state of one that has only listened for a while.

        The kernel treats a client that has just sent as interactive until it has owed an acknowledgement for 40 ms. Until
        then every second frame is acknowledged at once, within the server's `send` and at its expense; afterwards when the
        client reads, at the client's expense. A server that sends the second frame within 40 ms would keep its clients
        interactive and pay for it; a slower server would not. Source: tcp(7), TCP_QUICKACK, which ends that state.
        """
        for sock in self._sockets.values():
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def first(self) -> socket.socket:
        """Return the socket of the client that connected first."""
        return next(iter(self._sockets.values()))

    def receive_from(self, fd: int) -> None:
        """Receive what has arrived for one client."""
        self._receive(fd)

    def receive_available(self) -> None:
        """Receive what has arrived for all clients, without waiting."""
        for fd, _ in self._epoll.poll(0):
            self._receive(fd)

    def stay_connected(self, seconds: float) -> None:
        """Receive and answer heartbeats for `seconds`."""
        ends = time.perf_counter() + seconds
        while (left := ends - time.perf_counter()) > 0:
            for fd, _ in self._epoll.poll(min(left, 0.5)):
                self._receive(fd)

    def close(self) -> None:
        for sock in self._sockets.values():
            # A reset leaves no port in TIME_WAIT, so each server of a run starts on an equally fresh machine.
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
        """Return the bytes of a whole request with this body."""
        return f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def send(self, request: bytes) -> None:
        self.sock.sendall(request)

    def answered(self) -> bool:
        """Read what has arrived; return whether a response is complete. Raises RuntimeError if it is not a 200."""
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
        """Send a request and wait for its response."""
        self.send(request)
        while not self.answered():
            pass

    def close(self) -> None:
        self.sock.close()


def pin(core: int) -> None:
    """Keep this process on one core (modulo the number of cores)."""
    if os.cpu_count() or core == 0:
        os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})
