"""What connections cost Redis: `python -m benchmarks.registry`.

Measures Redis's processor time for a connection that opens, recovers, closes, or is forgotten with its node; and the memory
of a connection and of a notification. No server runs: the calls are those of a node. Medians of five rounds.
"""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain

import redis
from redis.commands.core import Script

from benchmarks import servers
from benchmarks.bus import BODY, ROUNDS
from benchmarks.swarm import pin
from socket_server.inbox.inbox import Entry, Retention
from socket_server.inbox.redis.store import RedisInbox
from socket_server.redis_access import lua
from socket_server.redis_access.keys import DEFAULT_KEYS

CONNECTIONS = 5_000
RECOVERIES = 2_000
MISSED = 10
AGENT = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148"

Change = tuple[str | int, ...]  # the script's arguments for one connection


def opened(number: int) -> Change:
    """Return the arguments for a connection that has opened."""
    return (
        _user(number),
        f"sid-{number:016}",
        f"pid-{number:08}.1795384833960383",
        0,
        "websocket",
        _address(number),
        AGENT,
    )


def closed(number: int) -> Change:
    """Return the arguments for a connection that has closed."""
    return _user(number), f"sid-{number:016}", "", "", "", "", ""


def _user(number: int) -> str:
    return str(1_000_000 + number)


def _address(number: int) -> str:
    return f"198.51.{number >> 8 & 255}.{number & 255}"


class Bench:
    """Measures the processor time and memory of one Redis."""

    def __init__(self, pid: int, url: str) -> None:
        self._pid = pid
        self._url = url
        self.client = redis.Redis.from_url(url)
        self._update = self.client.register_script(lua.load("socket_server.cluster", "common", "update"))
        self._forget_node = self.client.register_script(lua.load("socket_server.cluster", "common", "forget_node"))

    def each(self, act: Callable[[], object], count: int) -> float:
        """Call act, which does `count` things; return Redis's processor time for one of them in µs."""
        cpu = servers.cpu_s(self._pid)
        act()
        return (servers.cpu_s(self._pid) - cpu) / count * 1e6

    def update(self, changes: Sequence[Change], batch: int) -> None:
        """Write changes to the registry, `batch` in one call, as RedisRegistry does."""
        for at in range(0, len(changes), batch):
            some = changes[at : at + batch]
            self._run(self._update, 9_000, 20, len(changes), at, len(some), 0, *chain.from_iterable(some))

    def forget(self) -> None:
        """Forget the node, as another node does when its lease has ended."""
        while self._run(self._forget_node, 250, "1"):
            pass

    def _run(self, script: Script, *arguments: str | int) -> object:
        return script(args=[DEFAULT_KEYS.prefix, "a-node", *arguments])

    def connections(self, batch: int) -> dict[str, float]:
        """Measure connections that open and close, `batch` written to the registry in one call."""
        numbers = range(CONNECTIONS)
        self.client.flushall()
        self.update([opened(CONNECTIONS)], 1)
        before = self.client.info("memory")["used_memory"]
        found = {"opened us": self.each(lambda: self.update([*map(opened, numbers)], batch), CONNECTIONS)}
        found["bytes"] = (self.client.info("memory")["used_memory"] - before) / CONNECTIONS
        found["closed us"] = self.each(lambda: self.update([*map(closed, numbers)], batch), CONNECTIONS)
        self.update([*map(opened, numbers)], 250)
        found["forgotten us"] = self.each(self.forget, CONNECTIONS)
        return found

    def recoveries(self) -> dict[str, float]:
        """Measure a recovery that missed nothing, and one that missed some notifications."""
        self.client.flushall()
        inbox = RedisInbox(self._url, Retention())
        start = inbox.open()
        users = [_user(number) for number in range(RECOVERIES)]
        for _ in range(MISSED):
            for at in range(0, RECOVERIES, 50):
                inbox.append([Entry((user,), BODY) for user in users[at : at + 50]])
        newest = int(self.client.get(DEFAULT_KEYS.prefix + "head") or 0)

        def ask(after: int) -> Callable[[], object]:
            return lambda: [inbox.since(user, after, newest, 100, 65_536) for user in users]

        found = {
            "nothing missed us": self.each(ask(newest), RECOVERIES),
            f"{MISSED} missed us": self.each(ask(start), RECOVERIES),
        }
        inbox.close()
        return found

    def kept(self, users: int, of: int, count: int) -> dict[str, float]:
        """Return the bytes of a notification to `users` of `of` users, averaged over `count`; those in the log apart."""
        self.client.flushall()
        inbox = RedisInbox(self._url, Retention())
        inbox.open()
        before = self.client.info("memory")["used_memory"]
        for at in range(0, count, 50):
            inbox.append(
                [
                    Entry(tuple(_user((each * users + user) % of) for user in range(users)), BODY)
                    for each in range(at, at + 50)
                ]
            )
        log = int(self.client.memory_usage(DEFAULT_KEYS.log, samples=0) or 0)
        whole = self.client.info("memory")["used_memory"] - before
        inbox.close()
        return {"kept bytes": (whole - log) / count, "log bytes": log / count}


def show(title: str, ask: Callable[[], dict[str, float]]) -> None:
    rounds = [ask() for _ in range(ROUNDS)]
    cells = []
    for name in rounds[0]:
        found = [each[name] for each in rounds]
        cells.append(f"{name} {statistics.median(found):,.0f} ({min(found):,.0f} to {max(found):,.0f})")
    print(f"{title}: {'; '.join(cells)}", flush=True)


def main() -> None:
    pin(servers.LOAD_CORE)
    with servers.redis() as (pid, url):
        bench = Bench(pid, url)
        for batch in (1, 10, 250):
            show(f"connections, {batch} in a call", partial(bench.connections, batch))
        show("recoveries", bench.recoveries)
        show("a notification to 1 user, 20 a user", lambda: bench.kept(1, 500, 10_000))
        show("to 3 users, 2 a user", lambda: bench.kept(3, 15_000, 10_000))
        show("to 3 users, 30 a user", lambda: bench.kept(3, 1_000, 10_000))
        show("to 3 users, 300 a user", lambda: bench.kept(3, 100, 10_000))
        bench.client.close()


if __name__ == "__main__":
    main()
