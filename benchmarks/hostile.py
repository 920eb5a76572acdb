"""Hostile clients beside good ones: `python -m benchmarks.hostile [attack …] [--seconds 15]`.

200 good connections receive one notification a second while unauthenticated clients misbehave. Counted: notifications and
connections that the good clients lost, the latency of their notifications, and the growth of the server's memory.
"""

import argparse
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import servers
from benchmarks.broadcasts import body
from benchmarks.servers import OURS, ROOT, running, token
from benchmarks.swarm import Publisher, Swarm, masked, pin

GOOD = 200
_UPGRADE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_PING = b"\x89\x84\0\0\0\0ping"
_FRAGMENT = b"\x00\x80\0\0\0\0"

Step = Callable[[socket.socket], None]


@dataclass(frozen=True)
class Attack:
    """`sockets` connections, each opened by sending `hello`, then driven by `step` repeatedly; a lost one is reopened."""

    name: str
    title: str
    sockets: int
    hello: bytes
    step: Step
    pause_s: float = 0.0


def _send(data: bytes) -> Step:
    def step(sock: socket.socket) -> None:
        sock.send(data)

    return step


def _nothing(sock: socket.socket) -> None:
    sock.setblocking(False)
    try:
        if not sock.recv(65_536):
            raise ConnectionError
    except BlockingIOError:
        pass


def _trickle(sock: socket.socket) -> None:
    sock.send(b"X")


def _polling(size: int) -> Step:
    def step(sock: socket.socket) -> None:
        sock.setblocking(True)
        sock.settimeout(3)
        sock.send(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = sock.recv(65_536)
        sid = json.loads(answer.partition(b"\r\n\r\n")[2][1:])["sid"]
        target = f"/socket.io/?EIO=4&transport=polling&sid={sid}"
        sock.send(f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(size // 65_536):
            sock.send(b"4" * 65_536)

    return step


def _api(headers: bytes, chunk: bytes, times: int) -> Step:
    def step(sock: socket.socket) -> None:
        sock.send(
            b"POST /broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + headers + b"\r\n\r\n"
        )
        for _ in range(times):
            sock.send(chunk)

    return step


def _noise(sock: socket.socket) -> None:
    sock.send(random.randbytes(4_096))


_CHUNK = b"10000\r\n" + b"[" * 65_536 + b"\r\n"

_DECLARES_200_MB = b"\x81\xff" + (200_000_000).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * 60_000
_TEXT_OF_1_MB = b"\x81\xff" + (1_000_000).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * 1_000_000
_HALF_A_HEAD = b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"
_CONNECT = masked(b"40")
_EVENTS = masked(b'42["ping"]') * 500

ATTACKS = (
    Attack("none", "nothing (the reference)", 0, b"", _nothing),
    Attack("declared", "frames that declare 200 MB", 50, _UPGRADE, _send(_DECLARES_200_MB)),
    Attack("texts", "text frames of 1 MB", 20, _UPGRADE, _send(_TEXT_OF_1_MB)),
    Attack("slow", "500 slow handshakes", 500, _HALF_A_HEAD, _trickle, 1.0),
    Attack("idle", "5,000 connections that send nothing", 5_000, b"", _nothing, 1.0),
    Attack("silent", "1,000 that never authenticate", 1_000, _UPGRADE + _CONNECT, _nothing, 1.0),
    Attack("pings", "control frames whose answers are never read", 50, _UPGRADE, _send(_PING * 2_000)),
    Attack("fragments", "endless fragments", 50, _UPGRADE + b"\x01\x80\0\0\0\0", _send(_FRAGMENT * 3_000)),
    Attack("events", "a flood of events, its answers never read", 50, _UPGRADE + _CONNECT, _send(_EVENTS)),
    Attack("polling", "polling bodies of 10 MB", 20, b"", _polling(10_485_760)),
    Attack("huge", "API bodies of 100 MB", 20, b"", _api(b"Content-Length: 104857600", b"x" * 65_536, 100)),
    Attack("chunked", "chunked, deeply nested API bodies", 20, b"", _api(b"Transfer-Encoding: chunked", _CHUNK, 100)),
    Attack("noise", "random bytes", 50, b"", _noise),
)


def attack(name: str, port: int, seconds: float) -> None:
    """Run one attack against a server on `port` for `seconds`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.nice(10)
    chosen = next(each for each in ATTACKS if each.name == name)
    sockets: list[socket.socket | None] = [None] * chosen.sockets
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for index in range(len(sockets)):
            try:
                sock = sockets[index]
                if sock is None:
                    sock = sockets[index] = socket.create_connection(("127.0.0.1", port), 2)
                    if chosen.hello:
                        sock.send(chosen.hello)
                    sock.setblocking(False)
                chosen.step(sock)
            except BlockingIOError:
                pass
            except (OSError, ValueError, KeyError, IndexError):
                lost = sockets[index]
                sockets[index] = None
                if lost is not None:
                    lost.close()
            if time.monotonic() > ends:
                break
        time.sleep(chosen.pause_s or 0.01)


@dataclass(frozen=True)
class Outcome:
    """Result for the good clients. lost: notifications; cut: connections; grown_mb: growth of the server's memory."""

    lost: int
    cut: int
    p50_ms: float
    p99_ms: float
    grown_mb: float

    @property
    def within_limits(self) -> bool:
        return not self.lost and not self.cut and self.p99_ms < 100 and self.grown_mb < 50


def withstand(chosen: Attack, seconds: float) -> Outcome:
    """Measure 200 good connections during an attack."""
    with running(OURS, MAX_EVENTS_PER_SECOND="20") as server:
        swarm = Swarm(server.port)
        ids = [str(number) for number in range(GOOD)]
        swarm.connect(token(user_id) for user_id in ids)
        publisher = Publisher(server.port, servers.KEY)
        request = publisher.request(body(ids))
        publisher.post(request)
        swarm.count(GOOD)
        before = most = server.rss_kb()
        attackers = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.hostile", "--attack", chosen.name, str(server.port), str(seconds)],
            cwd=ROOT,
            preexec_fn=lambda: os.sched_setaffinity(0, {servers.LOAD_CORE}),
        )
        taken: list[float] = []
        lost = 0
        try:
            while attackers.poll() is None:
                started = time.perf_counter()
                publisher.send(request)
                arrived: list[float] = []
                try:
                    swarm.count(GOOD, timeout_s=10, arrivals=arrived)
                except TimeoutError:
                    lost += GOOD - len(arrived)
                taken += [each - started for each in arrived]
                while not publisher.answered():
                    pass
                most = max(most, server.rss_kb())
                swarm.stay_connected(max(0.0, 1 - (time.perf_counter() - started)))
        finally:
            attackers.terminate()
            attackers.wait()
        cut = swarm.lost
        publisher.close()
        swarm.close()
    taken.sort()
    return Outcome(
        lost,
        cut,
        taken[len(taken) // 2] * 1000,
        taken[min(len(taken) - 1, len(taken) * 99 // 100)] * 1000,
        (most - before) / 1024,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"attacks: {', '.join(each.name for each in ATTACKS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=15, help="duration of each attack")
    parser.add_argument("--attack", nargs=3, metavar=("NAME", "PORT", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if options.attack:
        attack(options.attack[0], int(options.attack[1]), float(options.attack[2]))
        return 0
    pin(servers.LOAD_CORE)
    failed = False
    print("| unauthenticated clients send | good ones lost | cut | p50 ms | p99 ms | memory grew MB |")
    print("|---|---:|---:|---:|---:|---:|")
    for each in ATTACKS:
        if options.names and each.name not in options.names:
            continue
        outcome = withstand(each, options.seconds)
        failed = failed or not outcome.within_limits
        print(
            f"| {each.title} | {outcome.lost} | {outcome.cut} "
            f"| {outcome.p50_ms:.1f} | {outcome.p99_ms:.1f} | {outcome.grown_mb:.1f} |",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
