"""The questions: each asks one server for some figures. A figure is a number with a name and a unit."""

import json
import multiprocessing
import select
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

from benchmarks import servers
from benchmarks.servers import Contestant, running, token
from benchmarks.swarm import Publisher, Swarm, masked
from socket_server.inbox.inbox import Entry, Retention
from socket_server.inbox.sqlite.file import SqliteFile

NOTIFICATION = {
    "actionKey": "updateTask",
    "title": {"he": "משימה חדשה", "en": "A new task"},
    "body": {"he": "דנה הוסיפה אותך למשימה", "en": "Dana added you to a task"},
    "metadata": {"url": "/tasks/42", "icon": "https://app.example.com/icon.png", "priority": "normal"},
    "data": {"taskId": 42},
}

Figures = dict[str, float]

DELIVERIES = 200_000  # of a fan-out, at least
PUBLISHERS = 16  # of a burst


@dataclass(frozen=True)
class Question:
    """ask: figures of one contestant; none where it cannot be asked that. bare: the bare send can be asked it too."""

    name: str
    title: str
    ask: Callable[[Contestant], Figures]
    bare: bool = False


def broadcast(user_ids: list[str], *, stored: bool) -> dict[str, object]:
    """Return what a back end posts. stored: for clients that are away; the peers know no such thing."""
    asked = {"userIds": user_ids, "notification": NOTIFICATION}
    return asked if stored else asked | {"ttl": 0}


def body(user_ids: list[str], *, stored: bool = False) -> bytes:
    return json.dumps(broadcast(user_ids, stored=stored), ensure_ascii=False).encode()


def fan_out(users: int, devices: int, publishers: int = 2) -> Callable[[Contestant], Figures]:
    """Deliveries/s of broadcasts to all of so many users, and processor time for each delivery.

    publishers: so many posts are not answered at any time. With two every server has the next broadcast already while the
    clients read one; with more, or where the answer comes before the last delivery, they come faster than they can be
    written out one by one.
    """

    def ask(contestant: Contestant) -> Figures:
        with running(contestant, MAX_CONNECTIONS_PER_USER="100") as server:
            swarm = Swarm(server.port)
            ids = [str(1_000_000 + number) for number in range(users)]
            swarm.connect(token(user_id) for user_id in ids for _ in range(devices))
            backs = [Publisher(server.port, servers.KEY) for _ in range(publishers)]
            request = backs[0].request(body(ids, stored=contestant.stores))
            each = users * devices
            backs[0].post(request)
            swarm.count(each)  # warm
            swarm.only_listen()
            rounds = max(3, publishers, DELIVERIES // each)
            total = rounds * each
            cpu, started = server.cpu_s(), time.perf_counter()
            swarm.count(total, meanwhile=_Posting(backs, request, rounds))
            elapsed, cpu = time.perf_counter() - started, server.cpu_s() - cpu
            swarm.close()
            for back in backs:
                back.close()
            return {"deliveries/s": total / elapsed, "cpu us/delivery": cpu / total * 1e6}

    return ask


class _Posting:
    """Publishers that post again and again, the next wherever an answer is in."""

    def __init__(self, publishers: list[Publisher], request: bytes, times: int) -> None:
        """Start a post with each publisher."""
        self._request = request
        self._left = times - len(publishers)
        self._waiting = {publisher.sock.fileno(): publisher for publisher in publishers}
        self._poll = select.epoll()
        for fd, publisher in self._waiting.items():
            publisher.send(request)
            self._poll.register(fd, select.EPOLLIN)

    def fileno(self) -> int:
        return self._poll.fileno()

    def step(self) -> None:
        for fd, _ in self._poll.poll(0):
            if self._waiting[fd].answered() and self._left > 0:
                self._left -= 1
                self._waiting[fd].send(self._request)


def posts(contestant: Contestant, publishers: int = 8, seconds: float = 4.0) -> Figures:
    """Posts/s of small broadcasts (one user, one device) from keep-alive publishers."""
    with running(contestant) as server:
        swarm = Swarm(server.port)
        swarm.connect([token("1")])
        backs = [Publisher(server.port, servers.KEY) for _ in range(publishers)]
        by_fd = {back.sock.fileno(): back for back in backs}
        request = backs[0].request(body(["1"], stored=contestant.stores))
        poll = select.epoll()
        for back in backs:
            poll.register(back.sock.fileno(), select.EPOLLIN)
            back.send(request)
        poll.register(swarm.first().fileno(), select.EPOLLIN)
        answered, cpu, started = 0, server.cpu_s(), time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            for fd, _ in poll.poll(1):
                back = by_fd.get(fd)
                if back is None:
                    swarm.drain(fd)
                elif back.answered():
                    answered += 1
                    back.send(request)
        cpu = server.cpu_s() - cpu
        for back in backs:
            back.close()
        swarm.close()
        return {"posts/s": answered / elapsed, "cpu us/post": cpu / answered * 1e6}


def spread(contestant: Contestant, publishers: int = 64, seconds: float = 4.0) -> Figures:
    """Posts/s of small broadcasts, each to one of 100 users with two devices, publishers and devices being spread over the
    nodes; and what a post costs, all processes together, Redis and the inbox's keeper among them."""
    if contestant not in (servers.OURS, servers.STORING) and not contestant.nodes:
        return {}
    stored = contestant is not servers.OURS
    with running(contestant) as server:
        swarms = [Swarm(node.port) for node in server.nodes]
        for number in range(200):
            swarms[number % len(swarms)].connect([token(str(number // 2))])
        backs = [Publisher(server.nodes[number % len(server.nodes)].port, servers.KEY) for number in range(publishers)]
        requests = [backs[0].request(body([str(number)], stored=stored)) for number in range(100)]
        by_fd = {back.sock.fileno(): back for back in backs}
        poll = select.epoll()
        for number, (fd, back) in enumerate(by_fd.items()):
            poll.register(fd, select.EPOLLIN)
            back.send(requests[number % 100])
        posted = publishers

        def serve(seconds: float) -> tuple[int, float]:
            """Post wherever an answer is in, for so long; return how many were answered, and how long it was."""
            nonlocal posted
            answered, started = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - started) < seconds:
                for fd, _ in poll.poll(1):
                    back = by_fd[fd]
                    if back.answered():
                        answered += 1
                        back.send(requests[posted % 100])
                        posted += 1
                for swarm in swarms:
                    swarm.take_in()
            return answered, elapsed

        serve(1.0)  # warm: several processes have more to find their pace than one
        cpu, redis = server.whole_cpu_s(), server.redis_cpu_s()
        answered, elapsed = serve(seconds)
        cpu, redis = server.whole_cpu_s() - cpu, server.redis_cpu_s() - redis
        for back in backs:
            while not back.answered():
                pass
            back.close()
        for swarm in swarms:
            swarm.rest(0.5)
        received = sum(swarm.received for swarm in swarms)
        for swarm in swarms:
            swarm.close()
        return {
            "posts/s": answered / elapsed,
            "posts per cpu s": answered / cpu,
            "cpu us/post": cpu / answered * 1e6,
            "of it Redis": redis / answered * 1e6,
            "deliveries missing": 2 * posted - received,
        }


def batch(contestant: Contestant, size: int = 100, seconds: float = 4.0) -> Figures:
    """Notifications/s through /broadcast/batch, where there is one."""
    if contestant not in (servers.OURS, servers.STORING):
        return {}
    with running(contestant) as server:
        swarm = Swarm(server.port)
        swarm.connect([token("1")])
        back = Publisher(server.port, servers.KEY, "/broadcast/batch")
        one = broadcast(["1"], stored=contestant.stores)
        request = back.request(json.dumps({"broadcasts": [one] * size}, ensure_ascii=False).encode())
        done, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            back.send(request)
            swarm.count(size)
            while not back.answered():
                pass
            done += size
        back.close()
        swarm.close()
        return {"batched posts/s": done / elapsed}


def latency(contestant: Contestant, times: int = 2_000) -> Figures:
    """Milliseconds from the start of one post to its receipt, one after the other."""
    with running(contestant) as server:
        swarm = Swarm(server.port)
        swarm.connect([token("1")])
        back = Publisher(server.port, servers.KEY)
        request = back.request(body(["1"], stored=contestant.stores))
        taken = []
        for number in range(times + 200):
            started = time.perf_counter()
            back.send(request)
            arrived = swarm.count(1)
            while not back.answered():
                pass
            if number >= 200:  # the first are warm-up
                taken.append((arrived - started) * 1000)
        back.close()
        swarm.close()
        taken.sort()
        return {"latency p50 ms": taken[len(taken) // 2], "latency p99 ms": taken[len(taken) * 99 // 100]}


def storm(contestant: Contestant, clients: int = 10_000, missed: int = 10, retained: int = 1_000_000) -> Figures:
    """Seconds until so many clients that come back at once are live again, each having missed some of what is retained; and
    the latency of posts to others meanwhile."""
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
    """Fill an inbox: notifications of one user, `each` for every user; return an offset before all of them."""
    inbox = SqliteFile(path, Retention())
    start = str(inbox.open())
    text = json.dumps(NOTIFICATION, ensure_ascii=False).encode()
    users = retained // each
    for _ in range(each):
        for first in range(0, users, 10_000):
            inbox.append([Entry((str(1_000_000 + user),), text) for user in range(first, min(first + 10_000, users))])
            while inbox.maintain():
                pass
    inbox.close()
    return start


class _Others:
    """100 connections that get a post every 10 ms, in a process of their own, which measures each one's way."""

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
        taken = []
        while not pipe.poll():
            started = time.perf_counter()
            back.send(back.request(body([f"other-{len(taken) % 100}"], stored=True)))
            taken.append((swarm.count(1) - started) * 1000)
            while not back.answered():
                pass
            swarm.rest(0.01)
        taken.sort()
        pipe.send(taken[len(taken) * 99 // 100])

    def stop(self) -> float:
        """Return the p99 in milliseconds."""
        self._ends.send("stop")
        found = self._ends.recv()
        assert isinstance(found, float)
        self._process.join()
        return found


def calls(contestant: Contestant, seconds: float = 5.0) -> Figures:
    """The longest that anybody waits while 200 broadcasts/s go to 100 users each: round trips of a ping every 2 ms."""
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
        taken, posted, under_way = [], 0, False
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            if posted < elapsed * 200 and not under_way:
                back.send(request)
                under_way, posted = True, posted + 1
            asked = time.perf_counter()
            probe.first().send(masked(b'42["ping"]'))
            while b'"pong"' not in _read(probe):
                pass
            taken.append((time.perf_counter() - asked) * 1000)
            swarm.rest(0.002)
            under_way = under_way and not (select.select([back.sock], [], [], 0)[0] and back.answered())
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
    """Connects/s, authenticated, and processor time for each; one node after the other, where there are several."""
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
    """KB of each idle connection (slope from 5,000 to 10,000), and processor time of 10,000 with their heartbeat."""
    with running(contestant, PING_INTERVAL=str(heartbeat_s)) as server:
        swarm = Swarm(server.port)
        tokens = [token(str(number)) for number in range(10_000)]
        swarm.connect(tokens[:5_000])
        swarm.rest(1)
        before = server.rss_kb()
        swarm.connect(tokens[5_000:])
        swarm.rest(1)
        after = server.rss_kb()
        cpu = server.cpu_s()
        swarm.rest(seconds)
        cpu = server.cpu_s() - cpu
        lost = swarm.lost
        swarm.close()
        return {"KB/idle connection": (after - before) / 5_000, "idle cpu %": cpu / seconds * 100, "lost": lost}


def many(contestant: Contestant, count: int = 50_000) -> Figures:
    """So many connections on one process, or as many as the machine's limit of open files allows; one broadcast to all."""
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


QUESTIONS = (
    Question("fanout1000", "Fan-out to 1,000 users", fan_out(1_000, 1), bare=True),
    Question("fanout5000", "Fan-out to 5,000 users", fan_out(5_000, 1), bare=True),
    Question("fanout200x5", "Fan-out to 200 users with 5 devices each", fan_out(200, 5), bare=True),
    Question("alone1000", "One publisher, one post after the other, to 1,000 users", fan_out(1_000, 1, 1)),
    Question("burst1000", f"{PUBLISHERS} publishers at once, to 1,000 users", fan_out(1_000, 1, PUBLISHERS)),
    Question("burst5000", f"{PUBLISHERS} publishers at once, to 5,000 users", fan_out(5_000, 1, PUBLISHERS)),
    Question("burst200x5", f"{PUBLISHERS} publishers at once, to 200 users with 5 devices", fan_out(200, 5, PUBLISHERS)),
    Question("posts", "POST /broadcast from 8 keep-alive publishers", posts),
    Question("spread", "Small broadcasts over several nodes, all on one core", spread),
    Question("batch", "POST /broadcast/batch, 100 at a time", batch),
    Question("latency", "One post, start to receipt", latency),
    Question("storm", "10,000 clients come back at once, each having missed 10 of a million retained", storm),
    Question("calls", "The longest wait during 200 broadcasts/s to 100 users each", calls),
    Question("connects", "Connecting, with a token", connects),
    Question("idle", "10,000 idle connections, heartbeat 5 s", idle),
    Question("many", "50,000 connections on one process, or as many as the file limit allows", many),
)
