"""A soak of churn: `python -m benchmarks.soak [--seconds 600]`.

Clients connect, receive and leave in every way, repeatedly. It passes if no connection is left at the end and memory has
grown by at most 5 MB since the first tenth of the time.
"""

import argparse
import json
import random
import socket
import struct
import sys
import time
import urllib.request

from benchmarks import servers
from benchmarks.broadcasts import body
from benchmarks.servers import OURS, Running, running, token
from benchmarks.swarm import MARKER, Publisher, masked, pin

_UPGRADE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_CLOSE = b"\x88\x82\0\0\0\0" + struct.pack("!H", 1000)
_USERS = 50
_AT_ONCE = 40


def connected(port: int, user_id: str) -> socket.socket:
    """Return an authenticated WebSocket connection."""
    sock = socket.create_connection(("127.0.0.1", port), 10)
    sock.sendall(_UPGRADE + masked(b"40" + json.dumps({"token": token(user_id)}).encode()))
    received = b""
    while b"auth_success" not in received:
        data = sock.recv(65_536)
        if not data:
            raise RuntimeError(f"refused: {received[:200]!r}")
        received += data
    return sock


def polling(port: int, user_id: str, leave: bool) -> None:
    """Open a polling session and authenticate. leave: close it; otherwise stop polling without a word."""
    url = f"http://127.0.0.1:{port}/socket.io/?EIO=4&transport=polling"
    with urllib.request.urlopen(url, timeout=10) as answer:
        sid = json.loads(answer.read()[1:])["sid"]
    packets = [b"40" + json.dumps({"token": token(user_id)}).encode()] + ([b"41", b"1"] if leave else [])
    for packet in packets:
        urllib.request.urlopen(f"{url}&sid={sid}", data=packet, timeout=10).close()


def disconnect(sock: socket.socket, way: int) -> None:
    """Close a connection in one of six ways."""
    if way == 0:
        sock.sendall(masked(b"41"))  # Socket.IO DISCONNECT, then close
    elif way == 1:
        sock.sendall(_CLOSE)
    elif way == 2:
        sock.sendall(b"\x81")  # in the middle of a frame
    elif way == 3:
        sock.sendall(b"\x01\x01x")  # with a protocol error
    elif way == 4:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # with a reset
    sock.close()


def churn(server: Running, ends: float) -> tuple[int, int]:
    """Connect, receive and disconnect until `ends` (monotonic); return the number of connections and of notifications."""
    publisher = Publisher(server.port, servers.KEY)
    request = publisher.request(body([str(number) for number in range(_USERS)]))
    clients: list[socket.socket] = []
    opened = received = 0
    while time.monotonic() < ends:
        while len(clients) < _AT_ONCE:
            clients.append(connected(server.port, str(opened % _USERS)))
            opened += 1
        publisher.post(request)
        for client in clients:
            data = b""
            while MARKER not in data:
                data += client.recv(65_536)
            received += 1
        for client in random.sample(clients, _AT_ONCE // 2):
            clients.remove(client)
            disconnect(client, random.randrange(6))
        half = socket.create_connection(("127.0.0.1", server.port))
        half.sendall(_UPGRADE[: random.randrange(len(_UPGRADE))])
        half.close()
        polling(server.port, str(opened % _USERS), leave=opened % 3 > 0)
    for client in clients:
        disconnect(client, 5)
    publisher.close()
    return opened, received


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args()
    pin(servers.LOAD_CORE)
    # Only the heartbeat notices a polling session that stopped: a short one, so that the run ends soon.
    settings = {"PING_INTERVAL": "2", "PING_TIMEOUT": "2", "MAX_CONNECTIONS_PER_USER": "1000"}
    with running(OURS, **settings) as server:
        started = time.monotonic()
        churn(server, started + max(5, options.seconds / 10))
        early = server.rss_kb()
        opened, received = churn(server, started + options.seconds)
        late = server.rss_kb()
        left = -1
        for _ in range(100):
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/stats", timeout=10) as answer:
                left = json.loads(answer.read())["totalConnections"]
            if not left:
                break
            time.sleep(0.2)
    print(
        f"seconds={options.seconds:g} connections={opened} notifications={received} left={left} "
        f"memory_mb={early / 1024:.1f} -> {late / 1024:.1f}"
    )
    return 1 if left or late - early > 5 * 1024 else 0


if __name__ == "__main__":
    sys.exit(main())
