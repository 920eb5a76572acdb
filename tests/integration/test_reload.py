"""SIGHUP and SIGUSR2: new workers take over the listening socket."""

import contextlib
import os
import signal
import time
from pathlib import Path

import requests

from tests.integration.conftest import Opens
from tests.integration.protocol import WebSocketClient
from tests.servers import (
    BIN,
    PRODUCTION,
    children_of,
    free_port,
    mint,
    running,
    start,
    wait_for,
)

GUNICORN = [str(BIN / "gunicorn"), "wsgi:app"]
HANDSHAKE = "/socket.io/?EIO=4&transport=polling"


def test_hup_reloads_into_a_new_worker(tmp_path: Path, opens: Opens) -> None:
    env_file = tmp_path / "settings.env"
    env_file.write_text("CLIENT_URL=http://before.example.com\n")
    settings = {name: value for name, value in PRODUCTION.items() if name != "CLIENT_URL"}
    port = free_port()
    server = start(
        tmp_path / "log", GUNICORN, port, ENV_FILE=env_file, PORT=port, HOST="127.0.0.1", DRAIN_SECONDS=0, **settings
    )
    try:
        client = opens(server)
        assert isinstance(client, WebSocketClient)
        client.sign_in({"token": mint("ada")})
        env_file.write_text("CLIENT_URL=http://after.example.com\n")
        server.process.send_signal(signal.SIGHUP)
        assert client.rest() == []
        assert client.close_code == 1012

        def reloaded() -> bool:
            with contextlib.suppress(requests.ConnectionError):
                answer = server.get("/health", headers={"Origin": "http://after.example.com"})
                return answer.ok and "Access-Control-Allow-Origin" in answer.headers
            return False

        wait_for(reloaded, what="the new settings")
        again = opens(server)
        again.sign_in({"token": mint("ada")})
        assert server.broadcast(["ada"], {"n": 1}).json()["totalSockets"] == 1
        assert again.event()[1] == {"n": 1}
        assert "Traceback" not in server.log()
    finally:
        assert server.stop() == 0
        server.session.close()


def test_during_a_reload_new_clients_are_served(tmp_path: Path, opens: Opens) -> None:
    """The new worker serves them while the old one closes its connections."""
    with running(tmp_path, DRAIN_SECONDS=2) as server:
        for _ in range(5):
            opens(server).sign_in({"token": mint("ada")})
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: server.log().count(" ready ") == 2 and "draining" in server.log(), what="the new worker")
        statuses = [requests.get(server.url + HANDSHAKE, timeout=10).status_code for _ in range(40)]
        assert set(statuses) == {200}, statuses
        assert {requests.get(f"{server.url}/health", timeout=10).status_code for _ in range(40)} == {200}


def test_a_new_master_that_was_killed_is_no_successor(tmp_path: Path, opens: Opens) -> None:
    """SIGUSR2 starts a version that fails, and its master is killed. The old server then stops as without it."""
    with running(tmp_path, DRAIN_SECONDS=3) as server:
        for _ in range(5):
            opens(server).sign_in({"token": mint("ada")})
        (worker,) = children_of(server.process.pid)
        server.process.send_signal(signal.SIGUSR2)
        wait_for(lambda: server.log().count(" ready ") == 2, what="the new master's worker")
        (new_master,) = children_of(server.process.pid) - {worker}
        successors = children_of(new_master)
        os.kill(new_master, signal.SIGKILL)
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in successors), what="the end of its worker")

        signalled = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "draining" in server.log(), what="the drain")
        assert requests.get(f"{server.url}/health", timeout=5).json()["status"] == "draining"
        assert server.process.wait(10) == 0
        assert time.monotonic() - signalled >= 2.4  # four fifths of DRAIN_SECONDS: the last of five connections


def test_while_the_new_worker_loads_the_old_one_serves(tmp_path: Path) -> None:
    """gunicorn stops the old worker as soon as it has forked the new one, which then loads the app."""
    (tmp_path / "slow.py").write_text("import time; time.sleep(2)\nfrom wsgi import app\n")
    port = free_port()
    server = start(
        tmp_path / "server.log",
        [str(BIN / "gunicorn"), "--pythonpath", str(tmp_path), "slow:app"],
        port,
        **PRODUCTION,
        HOST="127.0.0.1",
        PORT=port,
        INBOX_URL=f"sqlite:///{tmp_path}/inbox.db",
    )
    try:
        server.process.send_signal(signal.SIGHUP)
        slowest = 0.0
        while server.log().count(" ready ") < 2:
            began = time.monotonic()
            assert requests.get(server.url + HANDSHAKE, timeout=10).status_code == 200
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.02)
        assert slowest < 1, slowest
        wait_for(lambda: "stopped" in server.log(), what="the end of the old worker")
    finally:
        assert server.stop() == 0
        server.session.close()
