"""Measurements of publishing: fan-out, posts, batches, latency. Each returns figures: a name with a unit, and a number."""

import json
import select
import time
from collections.abc import Callable

from benchmarks import servers
from benchmarks.broadcasts import body, broadcast
from benchmarks.servers import Contestant, Figures, running, token
from benchmarks.swarm import Publisher, Swarm

DELIVERIES = 200_000  # minimum number in one measurement of a fan-out


def fan_out(users: int, devices: int, publishers: int = 2) -> Callable[[Contestant], Figures]:
    """Return a question: deliveries/s of broadcasts to `users` with `devices` connections each, and processor time of one.

    publishers: the number of posts that are unanswered at any time. With two, every server has its next broadcast while the
    clients read the last one. With more, or if the answer comes before the last delivery, broadcasts come faster than they
    can be written one by one.
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
            swarm.count(each)  # warm-up
            swarm.end_interactive_state()
            rounds = max(3, publishers, DELIVERIES // each)
            total = rounds * each
            cpu, started = server.cpu_s(), time.perf_counter()
            swarm.count(total, side_task=_Posting(backs, request, rounds))
            elapsed, cpu = time.perf_counter() - started, server.cpu_s() - cpu
            swarm.close()
            for back in backs:
                back.close()
            return {"deliveries/s": total / elapsed, "cpu us/delivery": cpu / total * 1e6}

    return ask


class _Posting:
    """Publishers that each send the next post as soon as the last one is answered, up to a total number."""

    def __init__(self, publishers: list[Publisher], request: bytes, times: int) -> None:
        """Send the first post of each publisher. times: total number of posts."""
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
                publisher = by_fd.get(fd)
                if publisher is None:
                    swarm.receive_from(fd)
                elif publisher.answered():
                    answered += 1
                    publisher.send(request)
        cpu = server.cpu_s() - cpu
        for back in backs:
            back.close()
        swarm.close()
        return {"posts/s": answered / elapsed, "cpu us/post": cpu / answered * 1e6}


def spread(contestant: Contestant, publishers: int = 64, seconds: float = 4.0) -> Figures:
    """Posts/s of small broadcasts, each to one of 100 users with two devices, and processor time of a post.

    Publishers and devices are spread over the nodes. The time is that of all processes: nodes, storage process, Redis.
    """
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
            """Post for `seconds`; return the number of answers, and the seconds that passed."""
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
                    swarm.receive_available()
            return answered, elapsed

        serve(1.0)  # warm-up: several processes need longer than one
        cpu, redis = server.whole_cpu_s(), server.redis_cpu_s()
        answered, elapsed = serve(seconds)
        cpu, redis = server.whole_cpu_s() - cpu, server.redis_cpu_s() - redis
        for back in backs:
            while not back.answered():
                pass
            back.close()
        for swarm in swarms:
            swarm.stay_connected(0.5)
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
    """Notifications/s through /broadcast/batch; the peers have no such path."""
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
    """Milliseconds from the start of a post to its receipt by the client, one post at a time."""
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
            if number >= 200:  # the first 200 are warm-up
                taken.append((arrived - started) * 1000)
        back.close()
        swarm.close()
        taken.sort()
        return {"latency p50 ms": taken[len(taken) // 2], "latency p99 ms": taken[len(taken) * 99 // 100]}
