"""Several workers on one port, with the Redis that they need."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.redis_servers import RunningRedis
from tests.servers import RunningServer, running

COUNT = 3


@contextlib.contextmanager
def several_workers(
    folder: Path, tool: Callable[[str], str], count: int = COUNT, **settings: Any
) -> Iterator[RunningServer]:
    """Run `gunicorn wsgi:app` with `count` workers. All serve when the block begins."""
    redis = RunningRedis(tool("redis-server"), folder)
    try:
        with running(folder, **{"WEB_CONCURRENCY": count, "REDIS_URL": redis.url, "INBOX_URL": "", **settings}) as server:
            server.wait_for_log(" ready ", count)
            yield server
    finally:
        redis.client.close()
        redis.kill()


def tag_of(sid: str) -> str:
    """Return the tag of the worker of this session."""
    return sid.rpartition(".")[2]


def workers(server: RunningServer) -> list[int]:
    """Return the process ids of a server's workers."""
    pid = server.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def handover_sockets() -> dict[str, str]:
    """Return the Unix sockets on which workers of this machine receive connections: inode -> name."""
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {fields[6]: fields[7] for fields in lines if len(fields) > 7 and fields[7].startswith("@socket-server-")}


def worker_of(server: RunningServer, sid: str) -> int:
    """Return the process id of the worker of this session."""
    ours = {f"socket:[{number}]" for number, name in handover_sockets().items() if name.endswith(tag_of(sid))}
    return next(pid for pid in workers(server) if ours & open_files(pid))


def open_files(pid: int) -> set[str]:
    """Return the targets of a process's open file descriptors."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(os.readlink(descriptor))
    return found
