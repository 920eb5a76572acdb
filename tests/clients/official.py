"""The official JavaScript client, driven from Python: a Node process with any number of connections."""

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    def __init__(self, node: str) -> None:
        self.script = Script(node, "client.mjs")
        self._connections: list[Connection] = []

    def stop(self) -> None:
        self.script.stop()

    def close_all(self) -> None:
        """Disconnect every connection."""
        for connection in self._connections:
            connection.close()

    def tell(self, command: str, **parameters: Any) -> None:
        self.script.write({"command": command, **parameters})

    def open(self, url: str, *, login: dict[str, Any] | None = None, **options: Any) -> Connection:
        """Connect as `io(url, options)`. login: what the event `auth` says at every connect; None: it is not sent."""
        name = f"client-{len(self._connections) + 1}"
        self.tell("open", name=name, url=url, options=options, login=login)
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
