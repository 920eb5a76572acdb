"""Where the way through Redis saturates: `python -m benchmarks.bus`.

How many notifications a second one Redis takes (the append script, with all it does), how many one node reads from the log,
and what each further node that reads costs Redis. Everything runs on 127.0.0.1; Redis has a core of its own.
"""

import threading
import time

import orjson
import redis

from benchmarks import servers
from benchmarks.questions import NOTIFICATION
from benchmarks.swarm import pin
from socket_server.cluster.feed import Feed
from socket_server.cluster.scripts import CONNECTIONS
from socket_server.inbox.inbox import Entry, Retention
from socket_server.inbox.memory import MemoryInbox
from socket_server.inbox.redis import LOG, RedisInbox, connect
from socket_server.inbox.redis_line import Line
from socket_server.notifications.broadcaster import Broadcaster
from socket_server.sessions import SessionManager

BODY = orjson.dumps(NOTIFICATION)
NOTIFICATIONS = 20_000


class _Deaf:
    """Hears no news."""

    def hear(self, news: object) -> None:
        """There is none."""


def appends(pid: int, url: str, size: int, users: int) -> str:
    """Return a row: what notifications cost Redis, so many in one append, each to so many users."""
    inbox = RedisInbox(url, Retention(), counted=CONNECTIONS)
    inbox.open()
    names = tuple(f"user-{number}" for number in range(users))
    rounds = max(20, NOTIFICATIONS // size // users)
    entries = [Entry(names, BODY)] * size
    cpu, started = servers.cpu_s(pid), time.perf_counter()
    for _ in range(rounds):
        inbox.append(entries)
    cpu, elapsed = servers.cpu_s(pid) - cpu, time.perf_counter() - started
    inbox.close()
    each = cpu / rounds / size
    return f"| {size} | {users} | {each * 1e6:.1f} | {1 / each:,.0f} | {rounds * size / elapsed:,.0f} |"


def fill(url: str, count: int) -> int:
    """Write so many notifications to nobody here into the log; return the head before them."""
    inbox = RedisInbox(url, Retention())
    head = inbox.open()
    for _ in range(count // 100):
        inbox.append([Entry((f"user-{number}",), BODY, ttl_s=0) for number in range(100)])
    inbox.close()
    return head


def reading(url: str, head: int, last: int) -> tuple[float, float]:
    """Return seconds and processor seconds in which one node reads the log and finds nobody of it connected."""
    broadcaster = Broadcaster(SessionManager(20), MemoryInbox(Retention()), head)
    feed = Feed(url, "reader", _Deaf())
    cpu, started = time.process_time(), time.perf_counter()
    feed.start(broadcaster, None)
    while broadcaster.head < last:
        time.sleep(0.002)
    cpu, elapsed = time.process_time() - cpu, time.perf_counter() - started
    feed.stop()
    return elapsed, cpu


def readers(pid: int, url: str, head: int, count: int, nodes: int) -> float:
    """Return Redis's processor time for each notification and reading node, in microseconds."""

    def read() -> None:
        line = Line(connect(url, 1)[0])
        place, got = f"{head}-0", 0
        while got < count:
            ((_, entries),) = line.ask("XREAD", "COUNT", 1_000, "STREAMS", LOG, place)
            got += len(entries)
            place = entries[-1][0]

    threads = [threading.Thread(target=read) for _ in range(nodes)]
    cpu = servers.cpu_s(pid)
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return (servers.cpu_s(pid) - cpu) / nodes / count * 1e6


def main() -> None:
    pin(servers.LOAD_CORE)
    with servers.redis() as (pid, url):
        client = redis.Redis.from_url(url)
        print(f"Redis {client.info()['redis_version']}, appendonly, everysec; bodies of {len(BODY)} bytes\n")
        print(
            "| in one append | users | Redis us each | its limit, notifications/s | seen, one writer |\n"
            "|---:|---:|---:|---:|---:|"
        )
        for size, users in ((1, 1), (8, 1), (64, 1), (8, 10), (1, 100), (1, 10_000)):
            client.flushall()
            print(appends(pid, url, size, users), flush=True)
        client.flushall()
        head = fill(url, NOTIFICATIONS)
        last = int(client.xinfo_stream(LOG)["last-generated-id"].partition(b"-")[0])
        elapsed, cpu = reading(url, head, last)
        print(
            f"\none node reads {NOTIFICATIONS / elapsed:,.0f} notifications/s, {cpu / NOTIFICATIONS * 1e6:.1f} us each",
            end="; ",
        )
        print(f"for Redis {readers(pid, url, head, NOTIFICATIONS, 4):.1f} us each and for every node that reads")
        client.close()


if __name__ == "__main__":
    main()
