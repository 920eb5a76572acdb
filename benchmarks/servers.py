"""The servers that are compared: how each is started, and its processor time and memory."""

import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import jwt

ROOT = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).resolve().parent / "peers"
BIN = Path(sys.executable).parent
SECRET = "a-secret-for-benchmarks-that-is-long-enough"
KEY = "an-api-key-for-benchmarks"
SERVER_CORE = 0
LOAD_CORE = 1

_TICK = os.sysconf("SC_CLK_TCK")

Figures = dict[str, float]  # "name unit" -> value


@dataclass(frozen=True)
class Contestant:
    """A server to compare: its name (`--against`), its title in the tables, its command and its environment."""

    name: str
    title: str
    command: tuple[str, ...]
    settings: tuple[tuple[str, str], ...] = ()
    stores: bool = False  # it keeps notifications in a SQLite inbox
    nodes: int = 0  # number of nodes joined by a Redis; 0: one process without Redis
    bare: bool = False  # it only writes every post to all of its clients


_SETTINGS = (("APP_ENV", "production"), ("LOG_LEVEL", "warning"), ("MAX_CONNECTIONS", "100000"), ("ENV_FILE", ""))
# The peers store nothing, so this contestant does not either: every notification has ttl 0.
OURS = Contestant("ours", "socket-server", (str(BIN / "gunicorn"), "wsgi:app"), (*_SETTINGS, ("INBOX_URL", "memory://")))
STORING = Contestant("storing", "socket-server, SQLite inbox", (str(BIN / "gunicorn"), "wsgi:app"), _SETTINGS, stores=True)
STOCK = Contestant(
    "stock",
    "Flask-SocketIO, stock",
    (
        str(BIN / "gunicorn"), "--chdir", str(PEERS), "-c", str(PEERS / "flask_stock_conf.py"), "flask_stock:app",
    ),
)  # fmt: skip
NODE_USUAL = Contestant(
    "node_usual", "Node socket.io, as usually written", ("node", str(PEERS / "node/server.js"), "usual")
)
NODE_LEAN = Contestant("node_lean", "Node socket.io, leanest", ("node", str(PEERS / "node/server.js"), "lean"))
NODES = Contestant("nodes", "socket-server, two nodes over Redis", (str(BIN / "gunicorn"), "wsgi:app"), _SETTINGS, nodes=2)
FLOOR_PYTHON = Contestant("floor_python", "the bare send, in Python", (sys.executable, str(PEERS / "floor.py")), bare=True)
FLOOR_C = Contestant("floor_c", "the bare send, in C", (str(PEERS / "floor"),), bare=True)
ALL = (OURS, STORING, NODES, STOCK, NODE_USUAL, NODE_LEAN, FLOOR_PYTHON, FLOOR_C)


@dataclass
class Running:
    """A running server. others: its other nodes."""

    contestant: Contestant
    port: int
    process: subprocess.Popen[bytes]
    others: tuple["Running", ...] = ()
    redis: int = 0  # process id of their Redis; 0: none

    @property
    def nodes(self) -> tuple["Running", ...]:
        return (self, *self.others)

    @property
    def pid(self) -> int:
        """Id of the process that serves: gunicorn's worker, or the process itself."""
        return next(iter(_children(self.process.pid)), self.process.pid)

    def cpu_s(self) -> float:
        """Processor time used so far, user and system, in seconds."""
        return cpu_s(self.pid)

    def whole_cpu_s(self) -> float:
        """Processor time of all nodes, their storage processes, and Redis, in seconds."""
        pids = [pid for node in self.nodes for pid in (node.pid, *_children(node.pid))]
        return sum(map(cpu_s, [*pids, self.redis] if self.redis else pids))

    def redis_cpu_s(self) -> float:
        """Processor time of Redis, in seconds."""
        return cpu_s(self.redis) if self.redis else 0.0

    def rss_kb(self) -> float:
        """Resident memory in KB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return float(line.split()[1])
        raise RuntimeError("no VmRSS")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_s(pid: int) -> float:
    """Return the processor time of a process so far, user and system, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def raise_file_limit(wanted: int = 200_000) -> int:
    """Raise the limit of open files of this process and its children as far as allowed; return the limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for soft_and_hard in ((wanted, max(wanted, hard)), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, soft_and_hard)
            break
        except (ValueError, OSError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def free_port() -> int:
    """Return a free port below 32768, so that no outgoing connection is given it before the server listens."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def running(contestant: Contestant, **settings: str) -> Iterator[Running]:
    """Run a contestant, with all of its processes on the server's core."""
    with ExitStack() as stack:
        if contestant.nodes:
            pid, settings["REDIS_URL"] = stack.enter_context(redis())
            first, *others = [stack.enter_context(_one(contestant, settings)) for _ in range(contestant.nodes)]
            yield Running(contestant, first.port, first.process, tuple(others), pid)
        else:
            yield stack.enter_context(_one(contestant, settings))


@contextmanager
def _one(contestant: Contestant, settings: dict[str, str]) -> Iterator[Running]:
    port = free_port()
    folder = tempfile.TemporaryDirectory()
    if contestant.stores:
        settings = {"INBOX_URL": f"sqlite:///{folder.name}/inbox.db", **settings}
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment = kept | {"PORT": str(port), "JWT_SECRET": SECRET, "API_KEYS": KEY} | dict(contestant.settings) | settings
    log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in the end, with the server
    process = subprocess.Popen(
        contestant.command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL if "usual" in contestant.name else log,
        stderr=log,
        start_new_session=True,
        preexec_fn=_pin_to_server_core,
    )
    server = Running(contestant, port, process)
    try:
        _wait(server, log, tls="SSL_CERT" in settings)
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()
        folder.cleanup()


@contextmanager
def redis() -> Iterator[tuple[int, str]]:
    """Run a Redis with an append-only file (flushed every second, its default); yield its process id and its URL."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
        process = subprocess.Popen(
            [*command, "--appendonly", "yes"], stdout=subprocess.DEVNULL, preexec_fn=_pin_to_server_core
        )
        try:
            for _ in range(200):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.05)
            yield process.pid, f"redis://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def _pin_to_server_core() -> None:
    os.sched_setaffinity(0, {SERVER_CORE})


def _wait(server: Running, log: BinaryIO, *, tls: bool) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", server.port), 1) as probe:
                if tls:
                    return  # the caller speaks TLS
                probe.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                if probe.recv(100).startswith(b"HTTP/1"):
                    return
        except OSError:
            time.sleep(0.05)
        if server.process.poll() is not None:
            break
    log.seek(0)
    raise RuntimeError(f"{server.contestant.title} does not start:\n{log.read().decode(errors='replace')}")


def token(user_id: str) -> str:
    """Return a token that every contestant accepts."""
    return jwt.encode({"id": user_id, "exp": int(time.time()) + 86_400}, SECRET, algorithm="HS256")


def available(contestant: Contestant) -> str | None:
    """Return why a contestant cannot run here; None if it can."""
    if contestant.nodes and shutil.which("redis-server") is None:
        return "redis-server is not installed"
    if contestant is FLOOR_C:
        if shutil.which("cc") is None:
            return "cc is not installed"
        subprocess.run(["cc", "-O2", "-o", *contestant.command, str(PEERS / "floor.c")], check=True)
    if contestant.command[0] == "node":
        if shutil.which("node") is None:
            return "node is not installed"
        if not (PEERS / "node/node_modules/socket.io").is_dir():
            return "run npm install --no-package-lock in benchmarks/peers/node"
    return None
