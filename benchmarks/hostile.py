"""Hostile clients beside good ones: `python -m benchmarks.hostile [attack …] [--seconds 15]`.

200 good connections receive one notification a second while unauthenticated clients misbehave, and each second a new client
connects with a token. Counted: notifications and connections that the good clients lost, latency of the notifications,
longest wait of a new client, and growth of the server's memory.
"""

import argparse
import json
import math
import os
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import servers
from benchmarks.attacks import ATTACKS, UPGRADE, Attack, attack
from benchmarks.broadcasts import body
from benchmarks.servers import OURS, ROOT, running, token
from benchmarks.swarm import Publisher, Swarm, masked, pin
from tests.integration.certificates import self_signed

GOOD = 200
_NEW_CLIENT_TIMEOUT_S = 10.0
_MAX_CONNECTIONS = "10000"  # the default


@dataclass(frozen=True)
class Outcome:
    """Result for the good clients.

    lost: notifications; cut: connections; new_ms: the longest wait of a new client, infinite if one was refused;
    grown_mb: growth of the server's memory.
    """

    lost: int
    cut: int
    p50_ms: float
    p99_ms: float
    new_ms: float
    grown_mb: float

    @property
    def within_limits(self) -> bool:
        return not self.lost and not self.cut and self.p99_ms < 100 and self.grown_mb < 50 and self.new_ms < 1_000


def withstand(chosen: Attack, seconds: float) -> Outcome:
    """Measure the good clients during an attack. With TLS there are new clients only."""
    with ExitStack() as stack:
        settings = {"MAX_EVENTS_PER_SECOND": "20", "MAX_CONNECTIONS": _MAX_CONNECTIONS, **chosen.settings}
        if chosen.tls:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            settings["SSL_CERT"], settings["SSL_KEY"] = map(str, self_signed(folder))
        server = stack.enter_context(running(OURS, **settings))
        good = [str(number) for number in range(0 if chosen.tls else GOOD)]
        swarm = Swarm(server.port)
        swarm.connect(token(user_id) for user_id in good)
        request = b"" if chosen.tls else Publisher(server.port, servers.KEY).request(body(good))
        before = most = server.rss_kb()
        attackers = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.hostile", "--attack", chosen.name, str(server.port), str(seconds)],
            cwd=ROOT,
            preexec_fn=lambda: os.sched_setaffinity(0, {servers.LOAD_CORE}),
        )
        taken: list[float] = []
        new: list[float] = []
        lost = 0
        try:
            while attackers.poll() is None:
                started = time.perf_counter()
                if request:
                    arrived, missed = broadcast(server.port, request, swarm)
                    taken += [each - started for each in arrived]
                    lost += missed
                new.append(time_of_new_client(server.port, tls=chosen.tls))
                most = max(most, server.rss_kb())
                swarm.stay_connected(max(0.0, 1 - (time.perf_counter() - started)))
        finally:
            attackers.terminate()
            attackers.wait()
        cut = swarm.lost
        swarm.close()
    taken = sorted(taken) or [0.0]
    return Outcome(
        lost,
        cut,
        taken[len(taken) // 2] * 1000,
        taken[min(len(taken) - 1, len(taken) * 99 // 100)] * 1000,
        max(new) * 1000,
        (most - before) / 1024,
    )


def broadcast(port: int, request: bytes, swarm: Swarm) -> tuple[list[float], int]:
    """Publish over a connection of its own; return when the notification arrived at each client, and how many missed it.

    A server whose descriptors are scarce closes idle connections, so a kept one could be closed at any time.
    """
    expected = len(swarm)
    publisher = Publisher(port, servers.KEY)
    arrived: list[float] = []
    try:
        publisher.send(request)
        swarm.count(expected, timeout_s=10, arrivals=arrived)
        while not publisher.answered():
            pass
    except TimeoutError:
        return arrived, expected - len(arrived)
    finally:
        publisher.close()
    return arrived, 0


def time_of_new_client(port: int, *, tls: bool = False) -> float:
    """Return the seconds in which a client connects and authenticates; infinite if it is refused or gets no answer."""
    started = time.perf_counter()
    try:
        with socket.create_connection(("127.0.0.1", port), _NEW_CLIENT_TIMEOUT_S) as plain:
            sock = _without_verification().wrap_socket(plain) if tls else plain
            sock.sendall(UPGRADE + masked(b"40" + json.dumps({"token": token("new")}).encode()))
            received = b""
            while b'"auth_success"' not in received:
                data = sock.recv(65_536)
                if not data or b"HTTP/1.1 503" in data:
                    return math.inf
                received += data
    except OSError:
        return math.inf
    return time.perf_counter() - started


def _without_verification() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


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
    print("| unauthenticated clients send | good ones lost | cut | p50 ms | p99 ms | new client ms | memory grew MB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for each in ATTACKS:
        if options.names and each.name not in options.names:
            continue
        outcome = withstand(each, options.seconds)
        failed = failed or not outcome.within_limits
        print(
            f"| {each.title} | {outcome.lost} | {outcome.cut} "
            f"| {outcome.p50_ms:.1f} | {outcome.p99_ms:.1f} | {outcome.new_ms:.1f} | {outcome.grown_mb:.1f} |",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
