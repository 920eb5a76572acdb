"""Measurements of connections: connecting, idling, returning after a loss, and waiting beside large broadcasts.

Each returns figures: a name with a unit, and a number.
"""

import json
import multiprocessing
import select
import tempfile
import time
from multiprocessing.connection import Connection

from benchmarks import servers
from benchmarks.broadcasts import NOTIFICATION, body
from benchmarks.servers import Contestant, Figures, running, token
from benchmarks.swarm import Publisher, Swarm, masked
from socket_server.inbox.inbox import Entry, Retention
from socket_server.inbox.sqlite.file import SqliteFile
from socket_server.inbox.sqlite.maintenance import Maintenance


def storm(contestant: Contestant, clients: int = 10_000, missed: int = 10, retained: int = 1_000_000) -> Figures:
    """Seconds until `clients` that reconnect at once are live again, and the latency of posts to others during that time.

    Each client has missed `missed` notifications of `retained` in the inbox.
    """
    if not contestant.stores:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/inbox.db"
        start = _fill(path, retained, missed)
        with running(contestant, INBOX_URL=f"sqlite:///{path}") as server:
            others = _Others(server.port)
            swarm = Swarm(server.port)
            ids = [str(1_000_000 + number * (retained // missed // clients)) for number in range(clients)]
            handshakes = [{"token": token(user_id), "lastId": start} for user_id in ids]
            started = time.perf_counter()
            swarm.connect(handshakes, window=1_000)
            if swarm.received < clients * missed:
                swarm.count(clients * missed - swarm.received)
            elapsed = time.perf_counter() - started
            replayed = swarm.received
            swarm.close()
            return {
                "storm s": elapsed,
                "replayed": replayed,
                "others' p99 ms": others.stop(),
                "RSS MB": server.rss_kb() / 1024,
            }


def _fill(path: str, retained: int, each: int) -> str:
    """Fill an inbox with `retained` notifications, `each` of every user; return an offset before all of them."""
    inbox = SqliteFile(path, Retention())
    start = str(inbox.open())
    maintenance = Maintenance(inbox)
    text = json.dumps(NOTIFICATION, ensure_ascii=False).encode()
    users = retained // each
    for _ in range(each):
        for first in range(0, users, 10_000):
            inbox.append([Entry((str(1_000_000 + user),), text) for user in range(first, min(first + 10_000, users))])
            while maintenance.run_slice():
                pass
    inbox.close()
    return start


class _Others:
    """100 other connections, in another process: one of them is sent a post every 10 ms, and its latency is measured."""

    def __init__(self, port: int) -> None:
        self._ends, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=self._run, args=(port, theirs))
        self._process.start()
        self._ends.recv()

    @staticmethod
    def _run(port: int, pipe: "Connection[object, object]") -> None:
        swarm = Swarm(port)
        swarm.connect(token(f"other-{number}") for number in range(100))
        back = Publisher(port, servers.KEY)
        pipe.send("ready")
        taken: list[float] = []
        while not pipe.poll():
            started = time.perf_counter()
            back.send(back.request(body([f"other-{len(taken) % 100}"], stored=True)))
            taken.append((swarm.count(1) - started) * 1000)
            while not back.answered():
                pass
            swarm.stay_connected(0.01)
        taken.sort()
        pipe.send(taken[len(taken) * 99 // 100])

    def stop(self) -> float:
        """Return the p99 latency in milliseconds."""
        self._ends.send("stop")
        found = self._ends.recv()
        assert isinstance(found, float)
        self._process.join()
        return found


def calls(contestant: Contestant, seconds: float = 5.0) -> Figures:
    """How long a client waits while 200 broadcasts/s go to 100 users each: round trips of a ping every 2 ms."""
    if contestant not in (servers.OURS, servers.STORING):
        return {}
    with running(contestant, MAX_EVENTS_PER_SECOND="1000000") as server:
        swarm = Swarm(server.port)
        ids = [str(number) for number in range(100)]
        swarm.connect(token(user_id) for user_id in ids)
        probe = Swarm(server.port)
        probe.connect([token("probe")])
        back = Publisher(server.port, servers.KEY)
        request = back.request(body(ids, stored=contestant.stores))
        taken, posted, unanswered = [], 0, False
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            if posted < elapsed * 200 and not unanswered:
                back.send(request)
                unanswered, posted = True, posted + 1
            asked = time.perf_counter()
            probe.first().send(masked(b'42["ping"]'))
            while b'"pong"' not in _read(probe):
                pass
            taken.append((time.perf_counter() - asked) * 1000)
            swarm.stay_connected(0.002)
            unanswered = unanswered and not (select.select([back.sock], [], [], 0)[0] and back.answered())
        back.close()
        swarm.close()
        probe.close()
        taken.sort()
        return {
            "ping p99 ms": taken[len(taken) * 99 // 100],
            "longest ping ms": taken[-1],
            "broadcasts/s": posted / seconds,
        }


def _read(swarm: Swarm) -> bytes:
    sock = swarm.first()
    select.select([sock], [], [], 5)
    return sock.recv(65_536)


def connects(contestant: Contestant, count: int = 3_000) -> Figures:
    """Authenticated connects/s, and processor time of each. Several nodes are connected to one after the other."""
    with running(contestant) as server:
        swarms = [Swarm(node.port) for node in server.nodes]
        tokens = [token(str(number)) for number in range(count + 200)]
        swarms[0].connect(tokens[:200])
        cpu, redis = server.whole_cpu_s(), server.redis_cpu_s()
        elapsed = sum(swarm.connect(tokens[200 + at :: len(swarms)]) for at, swarm in enumerate(swarms))
        cpu, redis = server.whole_cpu_s() - cpu, server.redis_cpu_s() - redis
        for swarm in swarms:
            swarm.close()
        figures = {"connects/s": count / elapsed, "cpu us/connect": cpu / count * 1e6}
        return figures | {"of it Redis": redis / count * 1e6} if contestant.nodes else figures


def idle(contestant: Contestant, heartbeat_s: int = 5, seconds: float = 15.0) -> Figures:
    """KB of an idle connection (slope from 5,000 to 10,000), and processor time of 10,000 with their heartbeat."""
    with running(contestant, PING_INTERVAL=str(heartbeat_s)) as server:
        swarm = Swarm(server.port)
        tokens = [token(str(number)) for number in range(10_000)]
        swarm.connect(tokens[:5_000])
        swarm.stay_connected(1)
        before = server.rss_kb()
        swarm.connect(tokens[5_000:])
        swarm.stay_connected(1)
        after = server.rss_kb()
        cpu = server.cpu_s()
        swarm.stay_connected(seconds)
        cpu = server.cpu_s() - cpu
        lost = swarm.lost
        swarm.close()
        return {"KB/idle connection": (after - before) / 5_000, "idle cpu %": cpu / seconds * 100, "lost": lost}


def many(contestant: Contestant, count: int = 50_000) -> Figures:
    """`count` connections on one process, or as many as the limit of open files allows; and one broadcast to all."""
    if contestant is not servers.OURS:
        return {}
    count = min(count, servers.raise_file_limit() - 1_000)
    with running(contestant, MAX_USERS_PER_BROADCAST="100000", MAX_BODY_BYTES="10000000") as server:
        swarm = Swarm(server.port)
        ids = [str(1_000_000 + number) for number in range(count)]
        took = swarm.connect(token(user_id) for user_id in ids)
        back = Publisher(server.port, servers.KEY)
        started = time.perf_counter()
        back.send(back.request(body(ids)))
        elapsed = swarm.count(count) - started
        figures = {
            "connected": float(len(swarm)),
            "connect s": took,
            "broadcast s": elapsed,
            "RSS MB": server.rss_kb() / 1024,
        }
        back.close()
        swarm.close()
        return figures
