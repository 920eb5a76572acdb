"""The SQLite inbox with ten million notifications, and the size of its file under retention: `python -m benchmarks.inbox`.

Measured through SqliteClient, as the server uses it, so each figure includes the way to the storage process and back.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.broadcasts import NOTIFICATION
from benchmarks.report import number
from socket_server.inbox.inbox import Entry, Inbox, InboxUnavailable, Retention
from socket_server.inbox.sqlite.client import SqliteClient
from socket_server.inbox.sqlite.file import SqliteFile
from socket_server.inbox.sqlite.maintenance import Maintenance

FEW = 10_000  # retained notifications of the small inbox, for comparison
EACH = 10  # notifications of one user
TOGETHER = 10_000  # entries in one append while an inbox is filled
TEXT = json.dumps(NOTIFICATION, ensure_ascii=False).encode()

Figures = dict[str, float | str]


def user(number: int) -> str:
    return str(1_000_000 + number)


def store(inbox: Inbox, entries: Sequence[Entry], delivered: int) -> int:
    """Append entries as a server that has delivered up to `delivered`; return the newest offset."""
    newest = inbox.append(entries, delivered).outcomes[-1]
    assert isinstance(newest, int)
    return newest


def maintained(maintenance: Maintenance) -> None:
    """Run all maintenance that is due, as the storage process does between requests."""
    while maintenance.run_slice():
        pass


def shuffled(users: int, rounds: int) -> Iterator[list[int]]:
    """Yield slices of users in random order, each user once a round, so that appends touch pages of the file at random."""
    order = list(range(users))
    dice = random.Random(1)
    for _ in range(rounds):
        dice.shuffle(order)
        for first in range(0, users, TOGETHER):
            yield order[first : first + TOGETHER]


def fill(path: str, retained: int) -> int:
    """Fill an inbox with `retained` notifications, each of one user; return an offset before all of them."""
    inbox = SqliteFile(path, Retention())
    maintenance = Maintenance(inbox)
    start = head = inbox.open()
    began, done = time.monotonic(), 0
    for numbers in shuffled(retained // EACH, EACH):
        head = store(inbox, [Entry((user(each),), TEXT) for each in numbers], head)
        maintained(maintenance)
        done += len(numbers)
        if done % 1_000_000 == 0:
            print(f"# {done:,} stored, {done / (time.monotonic() - began):,.0f}/s", file=sys.stderr, flush=True)
    inbox.close()
    return start


def size_mb(path: str) -> float:
    """Return the size of the file and of SQLite's -wal and -shm files beside it, in MB."""
    return sum(each.stat().st_size for each in Path(path).parent.glob(Path(path).name + "*")) / 1e6


def forget_pages(path: str) -> None:
    """Drop the file from the page cache, as after a start of the machine."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def storage_process_pid() -> int:
    """Return the id of the storage process, the only child of this process."""
    (pid,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return int(pid)


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")


def timed(act: Callable[[], object], times: int, each_second: float = 0) -> str:
    """Return p50 / p99 in milliseconds of `times` calls: one after the other, or `each_second` at a steady rate."""
    taken = []
    began = time.perf_counter()
    for call in range(times):
        if each_second:
            time.sleep(max(0.0, began + call / each_second - time.perf_counter()))
        started = time.perf_counter()
        act()
        taken.append((time.perf_counter() - started) * 1000)
    taken.sort()
    return f"{taken[times // 2]:.2f} / {taken[times * 99 // 100]:.2f}"


def opening_s(inbox: SqliteClient) -> float:
    started = time.perf_counter()
    inbox.open()
    return time.perf_counter() - started


def reopening_s(inbox: SqliteClient) -> float:
    """Kill the storage process, and return how long the start of the next one takes, in seconds."""
    os.kill(storage_process_pid(), signal.SIGKILL)
    while True:
        started = time.perf_counter()
        try:
            inbox.open()
        except InboxUnavailable:  # first the loss is noticed, then a second passes before the restart
            time.sleep(0.05)
        else:
            return time.perf_counter() - started


def ask(path: str, retained: int, times: int) -> Figures:
    """Fill an inbox and measure it. Each append and each read uses random users."""
    users = retained // EACH
    start = head = fill(path, retained)
    dice = random.Random(2)
    forget_pages(path)
    figures: Figures = {"file MB": size_mb(path)}
    inbox = SqliteClient(path, Retention())
    figures["start-up s"] = opening_s(inbox)
    head = inbox.open()

    def append(count: int) -> None:
        nonlocal head
        head = store(inbox, [Entry(tuple(map(user, dice.sample(range(users), count))), TEXT)], head)

    def read() -> None:
        page = inbox.since(user(dice.randrange(users)), start, None, 100, 65_536)
        assert page.total >= EACH
        assert page.complete

    figures["since, file not in memory ms"] = timed(read, times)
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 24):
            pass  # bring the file into the page cache, as on a running server
    figures["since ms"] = timed(read, times)
    figures["append to 1 user ms"] = timed(lambda: append(1), times)
    figures["append to 100 users, 200/s ms"] = timed(lambda: append(100), times, 200)
    figures["append to 100 users, without a pause ms"] = timed(lambda: append(100), times)
    figures["RSS MB"] = rss_mb(storage_process_pid())
    figures["start-up after kill -9 s"] = reopening_s(inbox)
    inbox.close()
    return figures


def bounded_by_count(path: str, users: int = 300) -> Figures:
    """Return the file's size after 1 to 4 times as many notifications as INBOX_MAX_PER_USER (its default) keeps."""
    retention = Retention()
    inbox = SqliteFile(path, retention)
    maintenance = Maintenance(inbox)
    head = inbox.open()
    figures: Figures = {}
    for times in range(1, 5):
        for _ in range(retention.max_per_user // 10):
            head = store(inbox, [Entry((user(each),), TEXT) for each in range(users)] * 10, head)
            maintained(maintenance)
        figures[f"{times}x"] = size_mb(path)
    inbox.close()
    return figures


def bounded_by_age(path: str, ttl_s: int = 10, each_second: int = 10_000) -> Figures:
    """Return the file's size after 1 to 4 times INBOX_TTL at a steady rate."""
    inbox = SqliteFile(path, Retention(ttl_s=ttl_s))
    maintenance = Maintenance(inbox)
    head = inbox.open()
    figures: Figures = {}
    began, stored = time.monotonic(), 0
    dice = random.Random(3)
    for times in range(1, 5):
        while (elapsed := time.monotonic() - began) < times * ttl_s:
            due = round(elapsed * each_second) - stored
            if due:
                head = store(inbox, [Entry((user(dice.randrange(100_000)),), TEXT) for _ in range(due)], head)
                stored += due
            maintained(maintenance)
            time.sleep(0.01)
        figures[f"{times}x"] = size_mb(path)
    inbox.close()
    return figures


def table(title: str, rows: Sequence[tuple[str, Figures]]) -> str:
    """Return a Markdown table with a row for each inbox."""
    names = list(rows[0][1])
    lines = [f"| {title} | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for row, figures in rows:
        cells = [each if isinstance(each, str) else number(each) for each in figures.values()]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inbox", description=__doc__)
    parser.add_argument("--notifications", type=int, default=10_000_000, help="retained notifications (default 10,000,000)")
    parser.add_argument("--times", type=int, default=3_000, help="number of calls of each kind (default 3,000)")
    parser.add_argument(
        "--directory",
        help="directory for the files, which are deleted at the end: on a disk, about 700 bytes a notification",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        rows = []
        for retained in sorted({FEW, options.notifications}):
            path = f"{folder}/{retained}.db"
            rows.append((f"{retained:,}", ask(path, retained, options.times)))
            print(f"# {rows[-1]}", file=sys.stderr, flush=True)
            for file in Path(folder).glob("*"):
                file.unlink()
        print(table("retained", rows))
        print("p50 / p99; start-up with the file not in memory\n")
        bounds = [
            ("by count (INBOX_MAX_PER_USER)", bounded_by_count(f"{folder}/count.db")),
            ("by age (INBOX_TTL)", bounded_by_age(f"{folder}/age.db")),
        ]
        print(table("file MB after 1 to 4 times what is retained", bounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
