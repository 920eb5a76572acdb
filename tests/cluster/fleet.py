"""Three nodes, their Redis, and nginx in front of them, as in DEPLOYMENT.md; and what an operator does to a node."""

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.nginx import RunningNginx, running_nginx
from tests.redis_servers import RunningRedis
from tests.servers import API_KEY, BIN, PRODUCTION, RunningServer, free_port, start, wait_for

NODES = ("node1", "node2", "node3")  # as three-nodes.conf names them

# A stop takes DRAIN_SECONDS, and some more.
PATIENCE_S = 60.0


class Node:
    """One node: gunicorn, which may hand its port over to another gunicorn (SIGUSR2)."""

    def __init__(self, name: str, directory: Path, **settings: Any) -> None:
        self.name = name
        self.port = free_port()
        self._pid_file = directory / f"{name}.pid"
        self._log_file = directory / f"{name}.log"
        self._settings: dict[str, Any] = {
            "HOST": "127.0.0.1",
            "TRUSTED_PROXIES": "127.0.0.1",
            "NODE_NAME": name,
            **PRODUCTION,
            **settings,
            "PORT": self.port,
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        self.server = self.start()

    def start(self) -> RunningServer:
        command = [str(BIN / "gunicorn"), "--pid", str(self._pid_file), "wsgi:app"]
        self.server = start(self._log_file, command, self.port, **self._settings)
        self._processes.append(self.server.process)
        return self.server

    @property
    def master(self) -> int:
        """Return the process id of gunicorn's master, which is not written anywhere for a moment while it reloads."""
        return int(wait_for(lambda: _text(self._pid_file), what="the process id"))

    def log(self) -> str:
        return self._log_file.read_text(errors="replace")

    def healthy(self) -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.server.url}/health", timeout=10).ok
        return False

    # How an operator restarts it; each returns when it is done

    def restart(self) -> None:
        """`systemctl restart`, `docker compose up` of a new version: SIGTERM, and a new start once it has ended."""
        status = self.server.stop(timeout_s=PATIENCE_S)
        assert status == 0, f"{self.name} ended with status {status}"
        self.server.session.close()
        self.start()
        wait_for(self.healthy, what=f"{self.name} in health")

    def reload(self) -> None:
        """`systemctl reload`: SIGHUP, and gunicorn starts new workers, which load the code and the settings anew."""
        before = self._workers(self.master)
        os.kill(self.master, signal.SIGHUP)
        wait_for(
            lambda: (now := self._workers(self.master)) and not now & before and self.healthy(),
            PATIENCE_S,
            f"other workers of {self.name}",
        )

    def upgrade(self) -> None:
        """SIGUSR2: a new gunicorn beside the old one, on the same port; then SIGTERM for the old one."""
        old, ready = self.master, self.log().count("ready mode=")
        os.kill(old, signal.SIGUSR2)
        beside = Path(f"{self._pid_file}.2")
        new = int(wait_for(lambda: _text(beside), what="another gunicorn"))
        wait_for(lambda: self._workers(new), what="its worker")
        wait_for(lambda: self.log().count("ready mode=") > ready, what="its worker")
        os.kill(old, signal.SIGTERM)
        wait_for(lambda: _gone(old, self._processes), PATIENCE_S, "the end of the old one")
        wait_for(lambda: not beside.exists() and self.master == new and self.healthy(), what=f"{self.name} in health")

    def kill(self) -> None:
        """The machine is gone. Returns once all of it is: a worker's port ends before its open connections do."""
        master = self.server.process.pid
        workers = [os.pidfd_open(pid) for pid in self._workers(master)]
        os.killpg(master, signal.SIGKILL)
        self.server.process.wait()
        for worker in workers:
            ended, _, _ = select.select([worker], [], [], 10)
            os.close(worker)
            assert ended, f"a worker of {self.name} does not end"

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.server.process.pid, signal.SIGKILL)
        self.server.process.wait()
        self.server.session.close()

    def _workers(self, master: int) -> set[int]:
        with contextlib.suppress(OSError):
            return set(map(int, Path(f"/proc/{master}/task/{master}/children").read_text().split()))
        return set()


def _text(file: Path) -> str:
    """Return what is in a file; nothing if it does not exist."""
    with contextlib.suppress(OSError):
        return file.read_text().strip()
    return ""


def _gone(pid: int, children: list[subprocess.Popen[bytes]]) -> bool:
    for child in children:
        child.poll()
    return not Path(f"/proc/{pid}").exists()


@dataclass(slots=True)
class Fleet:
    redis: RunningRedis
    nodes: list[Node]
    nginx: RunningNginx

    @property
    def url(self) -> str:
        """The address for clients and back ends, without TLS."""
        return f"http://127.0.0.1:{self.nginx.plain}"

    def post(self, user_ids: list[str], number: int, key: str | None = None) -> requests.Response:
        """Broadcast through nginx, in a connection of its own."""
        headers = {"Authorization": f"Bearer {API_KEY}"} | ({"Idempotency-Key": key} if key else {})
        body = {"userIds": user_ids, "notification": {"data": {"n": number}}}
        return requests.post(f"{self.url}/broadcast", json=body, headers=headers, timeout=30)

    def kept(self, user_id: str) -> list[int]:
        """Return the numbers of what is in a user's inbox."""
        path = f"{self.url}/users/{user_id}/notifications?limit=1000"
        answer = requests.get(path, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=10)
        return [each["notification"]["data"]["n"] for each in answer.json()["notifications"]]


@contextlib.contextmanager
def running_fleet(
    redis_program: str, nginx_program: str, directory: Path, changes: Mapping[str, str] | None = None, **settings: Any
) -> Iterator[Fleet]:
    """changes: of the nginx files. settings: of every node."""
    with contextlib.ExitStack() as stack:
        redis = RunningRedis(redis_program, directory)
        stack.callback(redis.kill)
        stack.callback(redis.client.close)
        nodes = []
        for name in NODES:
            nodes.append(Node(name, directory, REDIS_URL=redis.url, **settings))
            stack.callback(nodes[-1].end)
        nginx = stack.enter_context(running_nginx(nginx_program, directory, [node.port for node in nodes], changes))
        fleet = Fleet(redis, nodes, nginx)
        yield fleet
        for node in nodes:
            assert "Traceback" not in node.log(), node.log()
