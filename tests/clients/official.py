"""The official JavaScript client, driven from Python: a Node process with any number of connections."""

import contextlib
import json
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.servers import wait_for

HERE = Path(__file__).resolve().parent

TRANSPORTS: dict[str, dict[str, Any]] = {
    "default": {},
    "websocket": {"transports": ["websocket"]},
    "polling": {"transports": ["polling"]},
}


@dataclass(frozen=True, slots=True)
class Happening:
    """An event that a client saw, and over which transport. active: it connects again by itself if it must."""

    event: str
    args: list[Any]
    transport: str | None
    active: bool


class Script:
    """A Node script that prints lines of JSON; all that it printed so far is in `lines`."""

    def __init__(self, node: str, name: str, *arguments: object) -> None:
        self.lines: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [node, name, *map(str, arguments)], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def write(self, value: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()

    def line(self, timeout_s: float = 15.0, **wanted: Any) -> dict[str, Any]:
        """Return the first line that has these values."""

        def found() -> dict[str, Any] | None:
            if self.process.poll() is not None:
                raise AssertionError(f"the script ended with status {self.process.returncode}")
            return next((line for line in list(self.lines) if wanted.items() <= line.items()), None)

        line: dict[str, Any] = wait_for(found, timeout_s, f"a line with {wanted}")
        return line

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(5)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class Connection:
    """One connection of the official client, and what happened to it."""

    def __init__(self, clients: "Clients", name: str) -> None:
        self._clients = clients
        self._name = name

    @property
    def history(self) -> list[Happening]:
        lines = [line for line in list(self._clients.script.lines) if line["name"] == self._name]
        return [Happening(line["event"], line["args"], line["transport"], line["active"]) for line in lines]

    def all(self, event: str) -> list[Happening]:
        return [happening for happening in self.history if happening.event == event]

    def wait(self, event: str, count: int = 1, timeout_s: float = 15.0) -> Happening:
        """Return the event's occurrence number `count` (from 1), once it is there."""

        def found() -> Happening | None:
            occurrences = self.all(event)
            return occurrences[count - 1] if len(occurrences) >= count else None

        try:
            happening: Happening = wait_for(found, timeout_s, f"{event} number {count}")
        except AssertionError as error:
            raise AssertionError(f"{error}; the client saw {self.history[-20:]}") from None
        return happening

    def emit(self, event: str, *args: Any) -> None:
        self._clients.tell("emit", name=self._name, event=event, args=args)

    def ask(self, event: str, *args: Any) -> None:
        """Emit with an acknowledgement; it becomes the event `ack`."""
        self._clients.tell("ask", name=self._name, event=event, args=args)

    def close(self) -> None:
        self._clients.tell("close", name=self._name)


class Clients:
    """The connections of one Node process."""

    def __init__(self, node: str, package: str = "socket.io-client") -> None:
        self.script = Script(node, "client.mjs", package)
        self._connections: list[Connection] = []

    def stop(self) -> None:
        self.script.stop()

    def close_all(self) -> None:
        """Disconnect every connection."""
        for connection in self._connections:
            connection.close()

    def tell(self, command: str, **parameters: Any) -> None:
        self.script.write({"command": command, **parameters})

    def open(self, url: str, *, login: dict[str, Any] | None = None, follow: bool = False, **options: Any) -> Connection:
        """Connect as `io(url, options)`. login: what the event `auth` says at every connect; None: it is not sent.

        follow: the application itself says which offset it got last, as `lastId`: in its login, or else in `auth`.
        """
        name = f"client-{len(self._connections) + 1}"
        self.tell("open", name=name, url=url, options=options, login=login, follow=follow)
        self._connections.append(Connection(self, name))
        return self._connections[-1]

    def block(self, seconds: float) -> None:
        """Keep the process busy: for so long no connection of it reads or answers anything."""
        self.tell("block", ms=seconds * 1000)


@contextlib.contextmanager
def latency(node: str, port: int, delay_ms: int, websocket_delay_ms: int | None = None) -> Iterator[int]:
    """Put a slow network before a server's port; yield the port to connect to."""
    script = Script(node, "latency.mjs", port, delay_ms, websocket_delay_ms or delay_ms)
    try:
        wait_for(lambda: script.lines, what="the slow network")
        yield script.lines[0]["port"]
    finally:
        script.stop()


@dataclass(slots=True, eq=False)
class _Link:
    """A TCP connection through a Network."""

    client: socket.socket
    server: socket.socket
    stranded: bool = False  # the client is gone, and the server is not told
    ended: threading.Event = field(default_factory=threading.Event)  # the server has closed its side


class Network:
    """A network before a server's port that fails on command; connect to its own `port` instead.

    It stays while the server is restarted. It keeps all that the server has sent, in `carried`.
    """

    def __init__(self, server_port: int) -> None:
        self.carried = bytearray()
        self._server_port = server_port
        self._up = True
        self._links: list[_Link] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._run(self._accept)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._up = False
        _end(self._listener)
        self.drop()
        for link in self._links:
            _end(link.server)  # stranded ones too
        for thread in list(self._threads):
            thread.join(5)
        for each in (self._listener, *(end for link in self._links for end in (link.client, link.server))):
            each.close()

    def drop(self) -> None:
        """End every connection on both sides, and refuse new connections until restore()."""
        self._up = False
        for link in list(self._links):
            _end(link.client)
            if not link.stranded:
                _end(link.server)

    def strand(self) -> list[threading.Event]:
        """The same, but the server's sides stay open, as if the clients had lost their network: no FIN, no RST.

        Return what is set as the server closes them.
        """
        self._up = False
        stranded = [link for link in list(self._links) if not link.stranded and not link.ended.is_set()]
        for link in stranded:
            link.stranded = True
            _end(link.client)
        return [link.ended for link in stranded]

    def restore(self) -> None:
        """Let clients through again."""
        self._up = True

    def _run(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # it was closed
            try:
                if not self._up:
                    raise ConnectionRefusedError
                server = socket.create_connection(("127.0.0.1", self._server_port))
            except OSError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # refused by a reset
                client.close()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(client, server)
            self._links.append(link)
            self._run(self._carry_out, link)
            self._run(self._carry_in, link)
            if not self._up:
                # It failed just now. The other links are for drop() or strand() to end, each in its way.
                _end(client)
                _end(server)

    def _carry_out(self, link: _Link) -> None:
        with contextlib.suppress(OSError):
            while data := link.client.recv(65_536):
                if link.stranded:
                    return
                link.server.sendall(data)
        if not link.stranded:
            _end(link.server)

    def _carry_in(self, link: _Link) -> None:
        with contextlib.suppress(OSError):
            while data := link.server.recv(65_536):
                self.carried += data
                with contextlib.suppress(OSError):
                    link.client.sendall(data)  # fails if it is stranded
        link.ended.set()
        _end(link.client)


def _end(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
