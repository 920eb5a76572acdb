"""How many notifications one Redis can carry: `python -m benchmarks.bus`.

Measures the processor time of Redis for the append script, of one node for reading the log, and of Redis for each node that
reads. Everything runs on 127.0.0.1, Redis on the other core. Medians of five rounds; processor time, because other programs
on the machine disturb it least.
"""

import statistics
import threading
import time

import orjson
import redis

from benchmarks import servers
from benchmarks.broadcasts import NOTIFICATION
from benchmarks.swarm import pin
from socket_server.cluster import feed
from socket_server.inbox.inbox import Entry, Retention
from socket_server.inbox.memory import MemoryInbox
from socket_server.inbox.redis.store import RedisInbox
from socket_server.notifications.broadcaster import Broadcaster
from socket_server.redis_access.client import connect
from socket_server.redis_access.dedicated_connection import DedicatedConnection
from socket_server.redis_access.keys import DEFAULT_KEYS
from socket_server.sessions import SessionManager

BODY = orjson.dumps(NOTIFICATION)
NOTIFICATIONS = 20_000
APPENDS = 2_000  # maximum number of appends in one measurement
ROUNDS = 5


class _NoControl:
    """Handles no control messages: there are none."""

    def handle_control(self, message: object) -> None:
        """Do nothing."""


def appends(pid: int, url: str, size: int, users: int) -> float:
    """Return Redis's processor time for a notification in µs, with `size` in one append, each to `users`."""
    inbox = RedisInbox(url, Retention(), counts_connections=True)
    inbox.open()
    names = tuple(f"user-{number}" for number in range(users))
    times = max(10, min(APPENDS, NOTIFICATIONS // size // users))
    entries = [Entry(names, BODY)] * size
    cpu = servers.cpu_s(pid)
    for _ in range(times):
        inbox.append(entries)
    cpu = servers.cpu_s(pid) - cpu
    inbox.close()
    return cpu / times / size * 1e6


def fill(url: str, together: int) -> int:
    """Append notifications for users of no node here, `together` in one append; return the head before them."""
    inbox = RedisInbox(url, Retention())
    head = inbox.open()
    for _ in range(NOTIFICATIONS // together):
        inbox.append([Entry((f"user-{number}",), BODY, ttl_s=0) for number in range(together)])
    inbox.close()
    return head


def reading(url: str, head: int, last: int) -> float:
    """Return a node's processor time in µs for reading a notification for which it has no connection."""
    broadcaster = Broadcaster(SessionManager(20), MemoryInbox(Retention()), head)
    reader = feed.Feed(url, "reader", _NoControl())
    cpu = time.process_time()
    reader.start(broadcaster, None)
    while broadcaster.head < last:
        time.sleep(0.002)
    cpu = time.process_time() - cpu
    reader.stop()
    return cpu / NOTIFICATIONS * 1e6


def readers(pid: int, url: str, head: int, together: int, nodes: int = 4) -> float:
    """Return Redis's processor time in µs for each notification and each of `nodes` that read."""

    def read() -> None:
        connection = DedicatedConnection(connect(url, 1)[0])
        place, got = f"{head}-0", 0
        while got < NOTIFICATIONS:
            ((_, entries),) = connection.call("XREAD", "COUNT", feed.MAX_ENTRIES, "STREAMS", DEFAULT_KEYS.log, place)
            got += together * len(entries)
            place = entries[-1][0]

    threads = [threading.Thread(target=read) for _ in range(nodes)]
    cpu = servers.cpu_s(pid)
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return (servers.cpu_s(pid) - cpu) / nodes / NOTIFICATIONS * 1e6


def main() -> None:
    pin(servers.LOAD_CORE)
    with servers.redis() as (pid, url):
        client = redis.Redis.from_url(url)
        print(f"Redis {client.info()['redis_version']}, appendonly, everysec; bodies of {len(BODY)} bytes\n")
        print("| in one append | users | Redis us each, median | least to most | its limit, notifications/s |")
        print("|---:|---:|---:|---:|---:|")
        for size, users in ((1, 1), (8, 1), (64, 1), (8, 10), (1, 100), (1, 1_000), (1, 10_000)):
            found = []
            for _ in range(ROUNDS):
                client.flushall()
                found.append(appends(pid, url, size, users))
            each = statistics.median(found)
            print(
                f"| {size} | {users:,} | {each:,.1f} | {min(found):,.1f} to {max(found):,.1f} | {1e6 / each:,.0f} |",
                flush=True,
            )
        print("\nReading the log, for each notification and each node:\n")
        print("| stored together | the node, us | Redis, us | bytes |\n|---:|---:|---:|---:|")
        for together in (1, 10, 100):
            client.flushall()
            head = fill(url, together)
            last = int(client.xinfo_stream(DEFAULT_KEYS.log)["last-generated-id"].partition(b"-")[0])
            each = statistics.median(reading(url, head, last) for _ in range(ROUNDS))
            before = client.info("stats")["total_net_output_bytes"]
            asked = statistics.median(readers(pid, url, head, together) for _ in range(ROUNDS))
            sent = (client.info("stats")["total_net_output_bytes"] - before) / ROUNDS / 4 / NOTIFICATIONS
            print(f"| {together} | {each:.1f} | {asked:.1f} | {sent:.0f} |", flush=True)
        client.close()


if __name__ == "__main__":
    main()
