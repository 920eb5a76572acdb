"""Real servers for the tests: `gunicorn wsgi:app`, or another command, in a process of its own, as a user starts it."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import requests

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

SECRET = "a-secret-for-tests-that-is-long-enough-0123456789"
API_KEY = "an-api-key-for-tests-0123456789"

PRODUCTION = {"APP_ENV": "production", "JWT_SECRET": SECRET, "API_KEYS": API_KEY, "CLIENT_URL": "http://app.example.com"}


def free_port() -> int:
    """Return a free port below those that outgoing connections of the tests may get (32768 and up)."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(condition: Callable[[], Any], timeout_s: float = 15.0, what: str = "the condition") -> Any:
    """Return the condition's first true value. Fails after timeout_s seconds."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_s} s")
        time.sleep(0.02)


def mint(user_id: Any = "123", *, secret: str = SECRET, lifetime_s: float | None = 3600, **claims: Any) -> str:
    """Return a token as a back end would sign it."""
    payload: dict[str, Any] = {"id": user_id, **claims}
    if lifetime_s is not None:
        payload["exp"] = int(time.time() + lifetime_s)
    return jwt.encode(payload, secret, algorithm="HS256")


@dataclass
class RunningServer:
    """A server process of one test, and calls to it."""

    process: subprocess.Popen[bytes]
    port: int
    log_file: Path
    scheme: str = "http"
    api_key: str = API_KEY
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def api_headers(self) -> dict[str, str]:
        """The headers of a back end with the API key."""
        return {"Authorization": f"Bearer {self.api_key}"}

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(self.url + path, timeout=10, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.session.post(self.url + path, timeout=10, **options)

    def broadcast(self, user_ids: Any, notification: Any) -> requests.Response:
        return self.post(
            "/broadcast",
            json={"userIds": user_ids, "notification": notification},
            headers={"Authorization": f"Bearer {self.api_key}"},
        )

    def stats(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.get("/stats").json()
        return answer

    def wait_for_connections(self, count: int, timeout_s: float = 15.0) -> None:
        wait_for(lambda: self.stats()["totalConnections"] == count, timeout_s, f"{count} connections (now {self.stats()})")

    def wait_for_log(self, text: str, count: int, timeout_s: float = 20.0) -> None:
        """Return once the log has this text `count` times."""
        wait_for(lambda: self.log().count(text) >= count, timeout_s, f"{count} times {text!r} in the log")

    def stop(self, sig: int = signal.SIGTERM, timeout_s: float = 30.0) -> int:
        """Send a signal, and return the exit status once the process has ended."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(timeout_s)


def environment(**settings: Any) -> dict[str, str]:
    """Return a clean environment: what the machine needs, these settings, and no .env file."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {"ENV_FILE": "", "PYTHONUNBUFFERED": "1"} | {name: str(value) for name, value in settings.items()}


def finish(command: list[str], *, cwd: Path = ROOT, timeout_s: float = 20, **settings: Any) -> tuple[int, str, str]:
    """Run a command to its end; return (status, standard output, standard error)."""
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
            raise AssertionError(f"{command} did not end; it printed:\n{(output + errors)[:2000]}") from None
    return process.returncode, output, errors


def start(
    log_file: Path, command: list[str], port: int, *, scheme: str = "http", cwd: Path = ROOT, **settings: Any
) -> RunningServer:
    """Start a server and return once it answers GET /health/live below BASE_PATH.

    Unless the settings name a store, it has its own inbox: servers with one file deliver each other's notifications.
    """
    if not {"INBOX_URL", "REDIS_URL"} & settings.keys():
        settings["INBOX_URL"] = f"sqlite:///{log_file.parent}/inbox-{port}.db"
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(**settings),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A shell starts background jobs with SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    server = RunningServer(process, port, log_file, scheme, settings.get("API_KEYS", API_KEY))
    server.session.verify = False
    server.session.trust_env = False

    def answers() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"the server ended with status {process.returncode}:\n{server.log()}")
        try:
            return server.get(f"{str(settings.get('BASE_PATH', '')).rstrip('/')}/health/live").ok
        except requests.ConnectionError:
            return False

    try:
        wait_for(answers, what="the server's first answer")
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return server


@contextlib.contextmanager
def running(
    tmp_path: Path, command: Sequence[str] = (str(BIN / "gunicorn"), "wsgi:app"), **settings: Any
) -> Iterator[RunningServer]:
    """Run a server in production mode on a free port, with these settings on top. At the end its
    log must not contain a traceback.
    """
    port = int(settings.pop("PORT", 0)) or free_port()
    settings = {"HOST": "127.0.0.1", "DRAIN_SECONDS": 0, **PRODUCTION, **settings, "PORT": port}
    scheme = "https" if settings.get("SSL_CERT") else "http"
    log_file = tmp_path / f"server-{port}.log"
    server = start(log_file, list(command), port, scheme=scheme, **settings)
    try:
        yield server
        assert "Traceback" not in server.log(), server.log()
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.stop()
        if server.process.poll() is None:
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
        server.session.close()


def children_of(pid: int) -> set[int]:
    """Return the process ids of a process's children."""
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def limited_descriptors(tmp_path: Path, limit: int, **settings: Any) -> contextlib.AbstractContextManager[RunningServer]:
    """Run a server that may have this number of files open, and cannot raise the limit."""
    setpriv = shutil.which("setpriv")
    unprivileged = f"{setpriv} --bounding-set=-sys_resource" if setpriv else ""  # root could raise it
    script = f"ulimit -Sn {limit} && ulimit -Hn {limit} && exec {unprivileged} {BIN / 'gunicorn'} wsgi:app"
    return running(tmp_path, ["sh", "-c", script], **settings)
