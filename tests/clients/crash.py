"""A server that is killed again and again, while back ends post and official clients listen: nothing may be lost.

By hand, as long as you like: python -m tests.clients.crash --kills 100 --seed 1
"""

import argparse
import contextlib
import http.client
import itertools
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import requests

from tests.clients.official import TRANSPORTS, Script
from tests.servers import API_KEY, BIN, PRODUCTION, RunningServer, free_port, mint, start, wait_for

USERS = 50
CONNECTIONS_PER_USER = 2
PUBLISHERS = 3
# Between two posts of a publisher, at most: enough to keep them coming, and not so many that the machine does nothing else.
PAUSE_S = 0.008
# The retries of one post, and the recovery of all clients, end within this or something is broken.
PATIENCE_S = 30.0

# A stock client that loses its WebSocket in the middle of the upgrade, while its last poll is still being answered, stops
# polling all the same (engine.io-client 6.6). Only the silence brings it back: after 4 s here, 85 s by default.
HEARTBEAT = {"PING_INTERVAL": 1, "PING_TIMEOUT": 3}

STORAGE_PROCESS = "socket_server.inbox.sqlite.storage_process"


@dataclass(slots=True)
class Post:
    """One POST /broadcast, and what its publisher knows of it."""

    number: int
    users: tuple[str, ...]
    key: str | None
    offset: int | None = None  # None: it was not answered 200
    reach: tuple[int, int] = (0, 0)  # users and connections, as answered
    attempts: int = 0
    ended: float = 0.0


class Publisher(threading.Thread):
    """A back end with one kept connection, one post after the other. If that breaks it goes on to the next port.

    Half of its posts carry an Idempotency-Key, and are repeated until they are answered 200. The others are never repeated:
    if the answer is an error, or is lost, it is unknown whether they were accepted.
    """

    def __init__(
        self, ports: Sequence[int], users: Sequence[str], numbers: Iterator[int], seed: str, everybody: float = 0
    ) -> None:
        """everybody: which part of the posts goes to all users; the others go to one to five."""
        super().__init__(daemon=True)
        self.posts: list[Post] = []
        self.failure: BaseException | None = None
        self._users = users
        self._everybody = everybody
        self._numbers = numbers
        self._random = random.Random(seed)
        self._seed = seed
        self._ending = threading.Event()
        self._ports = itertools.cycle(ports)
        self._connection = self._connect()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", next(self._ports), timeout=10)

    def run(self) -> None:
        try:
            while not self._ending.is_set():
                users = self._random.sample(self._users, self._random.randint(1, 5))
                if self._random.random() < self._everybody:
                    users = list(self._users)
                self.publish(users, keyed=self._random.random() < 0.5)
                self._ending.wait(self._random.uniform(0, PAUSE_S))
        except BaseException as error:
            self.failure = error
        finally:
            self.close()

    def close(self) -> None:
        self._connection.close()

    def publish(self, users: Sequence[str], *, keyed: bool) -> Post:
        number = next(self._numbers)
        post = Post(number, tuple(users), f"{self._seed}-{number}" if keyed else None)
        self.posts.append(post)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            post.attempts += 1
            post.offset = self._try(post)
            post.ended = time.time()
            if post.offset is not None or not keyed:
                return post
            if time.monotonic() > deadline:
                raise AssertionError(f"post {number} was not accepted within {PATIENCE_S} s")
            time.sleep(0.05)  # as a back end waits before it tries again

    def _try(self, post: Post) -> int | None:
        """Return the offset that the server answered; None if it did not accept, or if that is unknown."""
        body = json.dumps({"userIds": post.users, "notification": {"data": {"n": post.number}}})
        headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
        if post.key is not None:
            headers["Idempotency-Key"] = post.key
        try:
            self._connection.request("POST", "/broadcast", body, headers)
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self._connection = self._connect()
            return None
        if response.status == 200:
            report = json.loads(answer)
            post.reach = report["deliveredTo"], report["totalSockets"]
            return int(report["id"])
        # 409: the first attempt, whose connection is gone, is still under way.
        if response.status == 503 or (response.status == 409 and post.attempts > 1):
            return None
        raise AssertionError(f"post {post.number} was answered {response.status} {answer!r}")

    def stop(self) -> None:
        self._ending.set()
        self.join(PATIENCE_S + 10)
        if self.failure is not None:
            raise self.failure


class Target(Protocol):
    """What is tried: one server, or several that act as one."""

    @property
    def ports(self) -> Sequence[int]:
        """The addresses for back ends; each uses another one while there are enough."""

    @property
    def entrances(self) -> Sequence[int]:
        """The addresses for clients; the connections of one user alternate between them."""

    def stats(self) -> list[tuple[int, int]]:
        """Return how many users and connections there are, as each server says."""

    def kept(self, user: str) -> set[int]:
        """Return the numbers of the newest notifications that the inbox has for a user."""

    def log(self) -> str:
        """Return what all servers have logged."""


class OneServer:
    """The server: gunicorn, its worker, and the storage process of its inbox; and all that can befall them."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.port = free_port()
        self.ports = [self.port]
        self.entrances = [self.port]
        self._log_file = directory / f"server-{self.port}.log"
        inbox = f"sqlite:///{directory}/inbox-{self.port}.db"
        common = {"HOST": "127.0.0.1", "DRAIN_SECONDS": 0, "INBOX_URL": inbox, **PRODUCTION, **HEARTBEAT}
        self._settings: dict[str, Any] = common | settings
        self.server = self._start()

    def _start(self) -> RunningServer:
        command = [str(BIN / "gunicorn"), "wsgi:app"]
        return start(self._log_file, command, self.port, **self._settings, PORT=self.port)

    def kill(self) -> None:
        """kill -9 of all its processes at once, and a new start."""
        self.die()
        self.start_again()

    def die(self) -> None:
        """kill -9 of all its processes at once."""
        self.signal(signal.SIGKILL)

    def signal(self, sig: int) -> None:
        """Send a signal to all its processes at once."""
        os.killpg(self.server.process.pid, sig)

    def kill_worker(self) -> None:
        """kill -9 of the worker; the master starts another."""
        before = self._workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        self._wait_for_others(self._workers, before, "another worker")

    def kill_storage_process(self) -> None:
        """kill -9 of the inbox's process; the worker starts another."""
        before = self._storage_processes()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        self._wait_for_others(self._storage_processes, before, "another storage process")

    def restart(self) -> None:
        """SIGTERM, and a new start once it has ended."""
        status = self.server.stop()
        assert status == 0, f"the server ended with status {status}"
        self.start_again()

    def reload(self) -> None:
        """SIGHUP: another worker takes over."""
        before = self._workers()
        os.kill(self.server.process.pid, signal.SIGHUP)
        self._wait_for_others(self._workers, before, "the end of the worker before")

    def start_again(self) -> None:
        """Start it on the same port, once all its processes have ended."""
        self.server.process.wait()
        self.server.session.close()
        # The master's children hold the port until they have ended too.
        wait_for(self._port_is_free, what="the end of all processes")
        self.server = self._start()

    def _port_is_free(self) -> bool:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError:
                return False
        return True

    def _wait_for_others(self, processes: Callable[[], set[int]], before: set[int], what: str) -> None:
        def others() -> bool:
            now = processes()
            if not now or now & before:
                return False
            try:
                return self.server.get("/health/live").ok
            except requests.ConnectionError:
                return False

        wait_for(others, what=what)

    def _workers(self) -> set[int]:
        master = self.server.process.pid
        return {pid for pid, parent, _ in _group(master) if parent == master}

    def _storage_processes(self) -> set[int]:
        return {pid for pid, _, command in _group(self.server.process.pid) if STORAGE_PROCESS in command}

    def stats(self) -> list[tuple[int, int]]:
        return [online(self.server)]

    def kept(self, user: str) -> set[int]:
        return kept(self.server, user)

    def log(self) -> str:
        return self.server.log()

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.die()
        self.server.process.wait()
        self.server.session.close()


def online(server: RunningServer) -> tuple[int, int]:
    """Return how many users and connections there are, as this server says; -1 if it does not answer."""
    try:
        stats = server.stats()
    except requests.ConnectionError:
        stats = {}
    return stats.get("connectedUsers", -1), stats.get("totalConnections", -1)


def kept(server: RunningServer, user: str) -> set[int]:
    """Return the numbers of the newest notifications that this server's inbox has for a user."""
    numbers: set[int] = set()
    after = "0"
    while True:
        answer = server.get(
            f"/users/{user}/notifications?limit=1000&after={after}", headers={"Authorization": f"Bearer {API_KEY}"}
        ).json()
        if not answer["notifications"]:
            return numbers
        numbers |= {each["notification"]["data"]["n"] for each in answer["notifications"]}
        after = answer["notifications"][-1]["id"]


def _group(leader: int) -> Iterator[tuple[int, int, str]]:
    """Yield the living processes of a process group: pid, parent, command line."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if os.getpgid(int(entry.name)) != leader:
                continue
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (entry / "cmdline").read_text()
        except OSError:
            continue  # it has ended in the meantime
        if state not in "ZX":
            yield int(entry.name), int(parent), command


class TornNetwork:
    """What lies between the clients and the server, and is cut."""

    def __init__(self, node: str, port: int) -> None:
        self._script = Script(node, "cuts.mjs", port)
        wait_for(lambda: self._script.lines, what="the network")
        self.port: int = self._script.lines[0]["port"]
        self._cuts = 0

    def cut(self) -> None:
        """Every connection at once; half of them the server does not notice."""
        self._cuts += 1
        self._script.write({})
        self._script.line(cut=self._cuts)

    def stop(self) -> None:
        self._script.stop()


@dataclass
class Counts:
    """What came of it."""

    hits: Counter[str] = field(default_factory=Counter)
    posts: int = 0
    answered: int = 0
    repeated: int = 0
    deliveries: int = 0
    reconnections: int = 0
    timeouts: int = 0  # ends that the client noticed by the silence alone
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    divergent: int = 0  # users whose connections saw another order, or not the same
    miscounted: int = 0  # what /stats, or the answer of a broadcast to everybody, says of those connected
    strange: int = 0  # for another user, or under another offset than was answered
    unrecovered: int = 0  # reconnections that were told, or took it, that something is missing
    faults: list[str] = field(default_factory=list)  # the first of them in words

    def fault(self, kind: str, words: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.faults) < 40:
            self.faults.append(f"{kind}: {words}")

    @property
    def sound(self) -> bool:
        return not self.faults

    def __str__(self) -> str:
        ways = " ".join(f"{way}:{count}" for way, count in sorted(self.hits.items()))
        return (
            f"kills={self.hits.total()} ({ways}) posts={self.posts} answered={self.answered} repeated={self.repeated} "
            f"deliveries={self.deliveries} reconnections={self.reconnections} timeouts={self.timeouts} lost={self.lost} "
            f"doubled={self.doubled} disordered={self.disordered} divergent={self.divergent} miscounted={self.miscounted} "
            f"strange={self.strange} unrecovered={self.unrecovered}"
        )


class Trial:
    """Clients, publishers and what they are for: hit it, then finish() and count."""

    def __init__(
        self,
        node: str,
        target: Target,
        ways: Mapping[str, Callable[[], object]],
        seed: int,
        transports: Sequence[str],
        users: int = USERS,
        publishers: int = PUBLISHERS,
        everybody: float = 0,
    ) -> None:
        """ways: what can befall it, by name. everybody: which part of the posts goes to all users."""
        self.target = target
        self._ways = ways
        self._random = random.Random(f"{seed}-moments")
        self.counts = Counts()
        self._moments: list[tuple[float, str]] = []
        self._users = [f"user-{number}" for number in range(users)]
        numbers = itertools.count(1)

        def publisher(number: int) -> Publisher:
            first = number % len(target.ports)
            ports = [*target.ports[first:], *target.ports[:first]]
            return Publisher(ports, self._users, numbers, f"{seed}-{number}", everybody)

        self._publishers = [publisher(number) for number in range(publishers)]
        # They post but once, when the others have ended.
        self._last = [publisher(publishers + number) for number in range(len(target.ports))]
        self._clients = Script(node, "away.mjs")
        kinds = itertools.cycle(transports)
        self._transports = {
            f"{user}/{number}": next(kinds) for user in self._users for number in range(CONNECTIONS_PER_USER)
        }
        entrances = itertools.cycle(target.entrances)
        clients = [
            {
                "name": name,
                "url": f"http://127.0.0.1:{next(entrances)}",
                "options": {**TRANSPORTS[kind], "auth": {"token": mint(_user(name), lifetime_s=86_400)}},
            }
            for name, kind in self._transports.items()
        ]
        self._clients.write({"command": "open", "clients": clients})

    def begin(self) -> None:
        """Start the publishers when every client is connected: a late client would start at a later notification."""
        self._clients.line(PATIENCE_S, event="all authenticated")
        for publisher in self._publishers:
            publisher.start()

    def hit(self, *ways: str, within_s: float = 1.2) -> str:
        """Let one of these things happen at a random moment; return which."""
        way = self._random.choice(ways)
        time.sleep(self._random.uniform(0.1, within_s))
        self._moments.append((time.time(), way))
        self._ways[way]()
        self.counts.hits[way] += 1
        return way

    def finish(self) -> Counts:
        """Stop publishing, wait until every client has the last notification, and count."""
        for publisher in self._publishers:
            publisher.stop()
        self._count_online()
        for publisher in self._last:
            with contextlib.closing(publisher):
                last = publisher.publish(self._users, keyed=True)
            if last.reach != self._online:
                self.counts.fault("miscounted", f"{last} should have reached {self._online}")
        self._clients.write({"command": "expect", "number": last.number})
        with contextlib.suppress(AssertionError):  # what did not come is counted
            self._clients.line(PATIENCE_S, event="all have")
        self._clients.write({"command": "dump"})
        journals = self._clients.line(PATIENCE_S, event="journals")["journals"]
        assert "Traceback" not in self.target.log(), self.target.log()
        self._count(journals)
        return self.counts

    def stop(self) -> None:
        self._clients.stop()

    @property
    def _online(self) -> tuple[int, int]:
        return len(self._users), len(self._transports)

    def _count_online(self) -> None:
        """Everybody comes back, and is counted once, by every server."""
        expected = [self._online] * len(self.target.ports)
        try:
            wait_for(lambda: self.target.stats() == expected, what="the right counts")
        except AssertionError:
            self.counts.fault("miscounted", f"{self.target.stats()} in place of {expected}")

    def _count(self, journals: Mapping[str, Mapping[str, Any]]) -> None:
        counts = self.counts
        publishers = [*self._publishers, *self._last]
        posts = {post.number: post for publisher in publishers for post in publisher.posts}
        counts.posts = len(posts)
        counts.answered = sum(post.offset is not None for post in posts.values())
        counts.repeated = sum(post.attempts > 1 for post in posts.values())
        for publisher in publishers:
            answered = [post for post in publisher.posts if post.offset is not None]
            for earlier, later in itertools.pairwise(answered):
                if later.offset <= earlier.offset:  # type: ignore[operator]
                    counts.fault("disordered", f"{later} was posted after {earlier} had been answered")

        # What one connection has received was accepted, whatever its publisher knows: so it is due to all of its users'.
        due: dict[str, set[int]] = {user: set() for user in self._users}
        accepted = {number for journal in journals.values() for number, _ in journal["received"]}
        for post in posts.values():
            if post.offset is not None or post.number in accepted:
                for user in post.users:
                    due[user].add(post.number)

        for name, journal in journals.items():
            self._count_connection(name, journal, posts, due[_user(name)])
        for user in self._users:
            first, *others = (journals[name]["received"] for name in journals if _user(name) == user)
            if any(other != first for other in others):
                counts.fault("divergent", f"the connections of {user} received {[len(each) for each in (first, *others)]}")

    def _count_connection(self, name: str, journal: Mapping[str, Any], posts: Mapping[int, Post], due: set[int]) -> None:
        counts = self.counts
        received = journal["received"]
        counts.deliveries += len(received)
        seen: set[int] = set()
        newest = 0
        for number, text in received:
            offset = int(text)
            post = posts.get(number)
            if post is None or _user(name) not in post.users or post.offset not in (None, offset):
                counts.fault("strange", f"{name} got {number} as {offset}: {post}")
            if number in seen:
                counts.fault("doubled", self._tell(name, journal, f"{number} again as {offset}", post))
            if offset <= newest:
                counts.fault("disordered", self._tell(name, journal, f"{number} as {offset} after {newest}", post))
            seen.add(number)
            newest = max(newest, offset)
        missing = sorted(due - seen)
        kept = self.target.kept(_user(name)) if missing else set()
        for number in missing:
            where = "it is in the inbox" if number in kept else "it is not in the inbox"
            counts.fault("lost", self._tell(name, journal, f"{number}; {where}", posts[number]))
        connects = [event for event in journal["events"] if event[1] == "connect"]
        counts.reconnections += len(connects) - 1
        counts.timeouts += sum(event[1:3] == ["disconnect", "ping timeout"] for event in journal["events"])
        # The first connect and the first greeting are those of a new client.
        for _, event, *rest in [*connects[1:], *[each for each in journal["events"] if each[1] == "auth_success"][1:]]:
            if rest[0] is not True:
                counts.fault("unrecovered", self._tell(name, journal, f"{event} {rest}", None))

    def _tell(self, name: str, journal: Mapping[str, Any], what: str, post: Post | None) -> str:
        """Describe a fault, with what happened around the time of its post."""
        words = f"{name} ({self._transports[name]}) {what}; {post}"
        if post is not None:
            at = post.ended
            near = [f"{moment - at:+.3f} {way}" for moment, way in self._moments if abs(moment - at) < 3]
            events = [
                f"{event[0] / 1000 - at:+.3f} {' '.join(map(str, event[1:]))}"
                for event in journal["events"]
                if abs(event[0] / 1000 - at) < 3
            ]
            words += f"\n    moments: {near}\n    events: {events}\n    in the end: {journal['state']}"
        return words


WAYS = ("server", "worker", "storage", "restart", "reload", "cut")


def _user(name: str) -> str:
    return name.partition("/")[0]


@contextlib.contextmanager
def trial(
    node: str,
    directory: Path,
    seed: int,
    transports: Sequence[str] = (),
    *,
    network: bool = False,
    users: int = USERS,
    everybody: float = 0,
    **settings: Any,
) -> Iterator[Trial]:
    """Start a server with its clients and publishers.

    transports: which clients use alternately; all if empty. network: there is one between clients and server, to be cut.
    everybody: which part of the posts goes to all users.
    """
    with contextlib.ExitStack() as stack:
        target = OneServer(directory, **settings)
        stack.callback(target.end)
        ways: dict[str, Callable[[], object]] = {
            "server": target.kill,
            "worker": target.kill_worker,
            "storage": target.kill_storage_process,
            "restart": target.restart,
            "reload": target.reload,
        }
        if network:
            between = TornNetwork(node, target.port)
            stack.callback(between.stop)
            target.entrances = [between.port]
            ways["cut"] = between.cut
        started = Trial(node, target, ways, seed, transports or tuple(TRANSPORTS), users, everybody=everybody)
        stack.callback(started.stop)
        started.begin()
        yield started


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.clients.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--ways", default="server,worker,storage", help=f"any of {','.join(WAYS)}")
    parser.add_argument("--transports", default="", help=f"any of {','.join(TRANSPORTS)}; all if empty")
    parser.add_argument("--users", type=int, default=USERS, help="each with two clients")
    parser.add_argument("--everybody", type=float, default=0, help="which part of the posts goes to all users")
    options = parser.parse_args()
    node = shutil.which("node")
    assert node is not None, "node is not installed"
    ways = options.ways.split(",")
    directory = Path(tempfile.mkdtemp(prefix="crash-"))
    print(f"seed={options.seed} directory={directory}", flush=True)
    transports = [each for each in options.transports.split(",") if each]
    trying = trial(
        node,
        directory,
        options.seed,
        transports,
        network="cut" in ways,
        users=options.users,
        everybody=options.everybody,
    )
    with trying as running:
        for number in range(1, options.kills + 1):
            way = running.hit(*ways)
            print(f"{time.strftime('%H:%M:%S')} {number} {way}", flush=True)
        counts = running.finish()
    for fault in counts.faults:
        print(fault)
    print(counts)
    return 0 if counts.sound else 1


if __name__ == "__main__":
    sys.exit(main())
