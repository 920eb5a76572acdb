"""A rolling restart: three nodes behind nginx, one after the other, while back ends post and official clients listen.

By hand: python -m tests.cluster.rolling --ways restart,reload,upgrade --rounds 3

Or before servers of your own, with whatever restarts them:
JWT_SECRET=… API_KEYS=… python -m tests.cluster.rolling --url http://127.0.0.1:3001 --run deploy/rolling-update.sh
"""

import argparse
import contextlib
import http.client
import itertools
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.clients.official import TRANSPORTS, Script
from tests.cluster.fleet import Fleet, Node, running_fleet
from tests.servers import API_KEY, SECRET, mint

USERS = 20
CONNECTIONS_PER_USER = 2  # of different transports, each on whichever node nginx gives it
PUBLISHERS = 3  # with a key, and as many without
PAUSE_S = 0.02
# All clients are back, and have what they missed, within this or something is broken.
PATIENCE_S = 40.0

_numbers = itertools.count(1)  # of posts
_RUN = secrets.token_hex(4)  # so that no key comes twice

WAYS: dict[str, Callable[[Node], None]] = {"restart": Node.restart, "reload": Node.reload, "upgrade": Node.upgrade}


@dataclass(frozen=True, slots=True)
class Post:
    number: int
    keyed: bool
    status: int  # 0: the connection broke
    at: float
    took_s: float


class Publisher(threading.Thread):
    """A back end that posts to all users through one kept connection, and never repeats a post."""

    def __init__(self, url: str, api_key: str, users: list[str], keyed: bool) -> None:
        super().__init__(daemon=True)
        self.posts: list[Post] = []
        self._users = users
        self._keyed = keyed
        self._ending = threading.Event()
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.netloc, timeout=30)
        self._api_key = api_key

    def run(self) -> None:
        while not self._ending.wait(PAUSE_S):
            self.publish()
        self.close()

    def close(self) -> None:
        self._connection.close()

    def publish(self) -> Post:
        number = next(_numbers)
        body = json.dumps({"userIds": self._users, "notification": {"data": {"n": number}}})
        headers = {"Authorization": f"Bearer {self._api_key}", "Content-Type": "application/json"}
        if self._keyed:
            headers["Idempotency-Key"] = f"{_RUN}-{number}"
        began = time.monotonic()
        try:
            self._connection.request("POST", "/broadcast", body, headers)
            response = self._connection.getresponse()
            response.read()
            status = response.status
        except (OSError, http.client.HTTPException):
            self._connection.close()
            status = 0
        self.posts.append(Post(number, self._keyed, status, time.time(), time.monotonic() - began))
        return self.posts[-1]

    def stop(self) -> None:
        self._ending.set()
        self.join(60)


@dataclass
class Counts:
    restarts: Counter[str] = field(default_factory=Counter)
    posts: Counter[str] = field(default_factory=Counter)  # "with a key", "without"
    failed: Counter[str] = field(default_factory=Counter)  # the same: not answered 200
    deliveries: int = 0
    reconnections: int = 0
    slowest_post_s: float = 0.0
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    unrecovered: int = 0
    faults: list[str] = field(default_factory=list)  # the first of them in words

    @property
    def sound(self) -> bool:
        return not (self.failed.total() or self.lost or self.doubled or self.disordered or self.unrecovered)

    def __str__(self) -> str:
        ways = " ".join(f"{way}:{count}" for way, count in sorted(self.restarts.items()))
        posts = " ".join(
            f"posts_{kind.replace(' ', '_')}={count} failed={self.failed[kind]}"
            for kind, count in sorted(self.posts.items())
        )
        return (
            f"restarts={self.restarts.total()} ({ways}) {posts} slowest_post_s={self.slowest_post_s:.3f} "
            f"deliveries={self.deliveries} reconnections={self.reconnections} lost={self.lost} doubled={self.doubled} "
            f"disordered={self.disordered} unrecovered={self.unrecovered}"
        )


class Load:
    """Clients and publishers."""

    def __init__(self, node: str, url: str, secret: str = SECRET, api_key: str = API_KEY) -> None:
        """node: the program. secret: of the tokens."""
        self._users = [f"user-{number}" for number in range(USERS)]
        kinds = itertools.cycle(TRANSPORTS)
        clients = [
            {
                "name": f"{user}/{number}",
                "options": {**TRANSPORTS[next(kinds)], "auth": {"token": mint(user, secret=secret, lifetime_s=86_400)}},
            }
            for user in self._users
            for number in range(CONNECTIONS_PER_USER)
        ]
        self._clients = Script(node, "away.mjs")
        self._clients.write({"command": "open", "url": url, "clients": clients})
        self._clients.line(PATIENCE_S, event="all authenticated")
        self._publishers = [
            Publisher(url, api_key, self._users, keyed) for keyed in (True, False) for _ in range(PUBLISHERS)
        ]
        for publisher in self._publishers:
            publisher.start()

    def finish(self, restarts: Counter[str]) -> Counts:
        """Stop publishing, wait until every client has the last notification, and count."""
        for publisher in self._publishers:
            publisher.stop()
        with contextlib.closing(self._publishers[0]) as publisher:
            last = publisher.publish()
        assert last.status == 200, last
        self._clients.write({"command": "expect", "number": last.number})
        with contextlib.suppress(AssertionError):  # what did not come is counted
            self._clients.line(PATIENCE_S, event="all have")
        self._clients.write({"command": "dump"})
        journals = self._clients.line(PATIENCE_S, event="journals")["journals"]
        return self._count(restarts, journals)

    def stop(self) -> None:
        self._clients.stop()

    def _count(self, restarts: Counter[str], journals: Mapping[str, Mapping[str, Any]]) -> Counts:
        counts = Counts(restarts)
        answered = set()
        for post in itertools.chain.from_iterable(publisher.posts for publisher in self._publishers):
            kind = "with a key" if post.keyed else "without"
            counts.posts[kind] += 1
            counts.slowest_post_s = max(counts.slowest_post_s, post.took_s)
            if post.status == 200:
                answered.add(post.number)
            else:
                counts.failed[kind] += 1
                counts.faults.append(f"failed: {post}")
        for name, journal in journals.items():
            numbers = [number for number, _ in journal["received"]]
            offsets = [int(offset) for _, offset in journal["received"]]
            connects = [event for event in journal["events"] if event[1] == "connect"]
            greetings = [event for event in journal["events"] if event[1] == "auth_success"]
            counts.deliveries += len(numbers)
            counts.reconnections += len(connects) - 1
            counts.lost += len(missing := answered - set(numbers))
            counts.doubled += len(numbers) - len(set(numbers))
            counts.disordered += sum(later <= earlier for earlier, later in itertools.pairwise(offsets))
            counts.unrecovered += sum(event[2] is not True for event in connects[1:] + greetings[1:])
            if missing:
                counts.faults.append(f"lost: {name} {sorted(missing)[:10]} {journal['events']} {journal['state']}")
        return counts


def roll(fleet: Fleet, node: str, steps: Iterable[tuple[str, Node]]) -> Counts:
    """Restart nodes in these ways, one after the other, under load. node: the program."""
    load = Load(node, fleet.url)
    try:
        restarts: Counter[str] = Counter()
        for way, each in steps:
            began = time.monotonic()
            WAYS[way](each)
            restarts[way] += 1
            print(f"{time.strftime('%H:%M:%S')} {way} {each.name} {time.monotonic() - began:.1f} s", flush=True)
        return load.finish(restarts)
    finally:
        load.stop()


def run(url: str, command: list[str], node: str) -> Counts:
    """Run a command that restarts the servers behind a URL, under load. node: the program."""
    load = Load(node, url, os.environ["JWT_SECRET"].partition(",")[0], os.environ["API_KEYS"].partition(",")[0])
    try:
        subprocess.run(command, check=True)
        return load.finish(Counter({command[0]: 1}))
    finally:
        load.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.rolling", description=__doc__)
    parser.add_argument("--ways", default="restart", help=f"in turn, any of {','.join(WAYS)}")
    parser.add_argument("--rounds", type=int, default=1, help="of each way; a round restarts every node once")
    parser.add_argument("--drain", type=float, default=10, help="DRAIN_SECONDS of the nodes")
    parser.add_argument("--url", help="of servers of your own, in place of three nodes of this machine")
    parser.add_argument("--run", nargs=argparse.REMAINDER, help="the command that restarts them; it comes last")
    options = parser.parse_args()
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    programs = {name: shutil.which(name, path=path) or "" for name in ("node", "redis-server", "nginx")}
    missing = [name for name, found in programs.items() if not found and (name == "node" or not options.url)]
    assert not missing, f"not installed: {missing}"
    if options.url:
        return _tell(run(options.url, options.run, programs["node"]))
    directory = Path(tempfile.mkdtemp(prefix="rolling-"))
    print(f"directory={directory}", flush=True)
    failures = 0
    with running_fleet(programs["redis-server"], programs["nginx"], directory, DRAIN_SECONDS=options.drain) as fleet:
        for way in options.ways.split(","):
            failures += _tell(roll(fleet, programs["node"], [(way, each) for each in fleet.nodes] * options.rounds))
    return min(failures, 1)


def _tell(counts: Counts) -> int:
    """Print what came of it; return the exit status."""
    for fault in counts.faults[:20]:
        print(fault)
    print(counts, flush=True)
    return 0 if counts.sound else 1


if __name__ == "__main__":
    sys.exit(main())
