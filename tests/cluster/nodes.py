"""Several nodes on one Redis, what lies between all of them, and what can befall each."""

import contextlib
import json
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.clients.crash import OneServer, kept, online
from tests.clients.official import Script
from tests.redis_servers import RunningRedis
from tests.servers import wait_for


class Entrances:
    """Ports, each of which leads to the first of some others that answers (entrances.mjs), and can be shut."""

    def __init__(self, node: str, *lists: Sequence[int]) -> None:
        self._script = Script(node, "entrances.mjs", json.dumps(lists))
        wait_for(lambda: self._script.lines, what="the entrances")
        self.ports: list[int] = self._script.lines[0]["ports"]
        self._written = 0

    def shut(self, entrance: int) -> None:
        """Cut all connections through it, and refuse new ones."""
        self._set(entrance, open=False)

    def reopen(self, entrance: int) -> None:
        self._set(entrance, open=True)

    def _set(self, entrance: int, *, open: bool) -> None:
        self._written += 1
        self._script.write({"entrance": entrance, "open": open})
        self._script.line(line=self._written)

    def stop(self) -> None:
        self._script.stop()


def _clock(ahead_s: float) -> dict[str, str]:
    """Return the settings of a process whose clock is so far ahead."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    return {"LD_PRELOAD": str(library), "FAKETIME": f"{ahead_s:+g}"}


class Cluster:
    """Nodes, each of which reaches Redis by a way of its own, and entrances for clients, one a node."""

    def __init__(
        self,
        node: str,
        server: RunningRedis,
        directory: Path,
        count: int = 3,
        clocks_s: Sequence[float] = (),
        **settings: Any,
    ) -> None:
        """node: the Node.js executable; server: the Redis; clocks_s: how far the nodes' clocks are ahead (libfaketime)."""
        self.redis = server
        self._stack = contextlib.ExitStack()
        try:
            self._ways = Entrances(node, *[[server.port]] * count)
            self._stack.callback(self._ways.stop)
            self.nodes: list[OneServer] = []
            for number, port in enumerate(self._ways.ports):
                clock = _clock(clocks_s[number]) if number < len(clocks_s) else {}
                self.nodes.append(self._start(directory, number, port, settings | clock))
                self._stack.callback(self.nodes[-1].end)
            self.ports = [each.port for each in self.nodes]
            between = Entrances(node, *(self.ports[first:] + self.ports[:first] for first in range(count)))
            self._stack.callback(between.stop)
            self.entrances = between.ports
        except BaseException:
            self._stack.close()
            raise

    @staticmethod
    def _start(directory: Path, number: int, redis_port: int, settings: Mapping[str, Any]) -> OneServer:
        joined = {"REDIS_URL": f"redis://127.0.0.1:{redis_port}/0", "INBOX_URL": "", "NODE_NAME": f"node-{number}"}
        return OneServer(directory, **joined | settings)

    def stats(self) -> list[tuple[int, int]]:
        return [online(each.server) for each in self.nodes]

    def kept(self, user: str) -> set[int]:
        return kept(self.nodes[0].server, user)

    def log(self) -> str:
        return "\n".join(each.log() for each in self.nodes)

    def end(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    # What can befall it

    def kill(self, number: int, seconds: float) -> None:
        """kill -9 of a node; its clients go to the others. It is started again when so many seconds have gone by."""
        self.nodes[number].die()
        time.sleep(seconds)
        self.nodes[number].start_again()

    def stop(self, number: int, seconds: float) -> None:
        """Stop a node (SIGSTOP): its clients are not told, and stay connected."""
        self.nodes[number].signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.nodes[number].signal(signal.SIGCONT)

    def cut_off(self, number: int, seconds: float) -> None:
        """A node loses its way to Redis, and nothing else."""
        self._ways.shut(number)
        time.sleep(seconds)
        self._ways.reopen(number)

    def kill_redis(self, seconds: float) -> None:
        self.redis.kill()
        time.sleep(seconds)
        self.redis.start()

    def stop_redis(self, seconds: float) -> None:
        """Redis stands still: it is slow beyond measure."""
        self.redis.stop()
        time.sleep(seconds)
        self.redis.resume()

    def ways(self, seed: int, seconds: float | None) -> dict[str, Callable[[], object]]:
        """Return what can befall it, each for so long (None: for 1 to 8 seconds), a node being taken at random."""
        chance = random.Random(f"{seed}-ways")

        def node() -> int:
            return chance.randrange(len(self.nodes))

        def span() -> float:
            return chance.uniform(1, 8) if seconds is None else seconds

        return {
            "nothing": lambda: time.sleep(span()),
            "kill": lambda: self.kill(node(), span()),
            "stop": lambda: self.stop(node(), span()),
            "cut-off": lambda: self.cut_off(node(), span()),
            "restart": lambda: self.nodes[node()].restart(),
            "reload": lambda: self.nodes[node()].reload(),
            "redis-kill": lambda: self.kill_redis(span()),
            "redis-stop": lambda: self.stop_redis(span()),
        }
