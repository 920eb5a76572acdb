"""Every way to start a server serves: the Procfile, `flask run`, `socket-server run`."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.integration.conftest import Opens
from tests.integration.entry_points import receives
from tests.servers import (
    BIN,
    PRODUCTION,
    ROOT,
    RunningServer,
    finish,
    free_port,
    mint,
    start,
)

SCRIPT = str(BIN / "socket-server")


@contextlib.contextmanager
def started(log_file: Path, command: list[str], **settings: Any) -> Iterator[RunningServer]:
    """Run a server by this command, and kill its process group at the end."""
    port = free_port()
    settings = {"HOST": "127.0.0.1", "DRAIN_SECONDS": 0, **PRODUCTION, **settings, "PORT": port}
    command = [word.replace("{port}", str(port)) for word in command]
    server = start(log_file, command, port, cwd=Path(settings.pop("CWD", ROOT)), **settings)
    try:
        yield server
        assert "Traceback" not in server.log(), server.log()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
        server.session.close()


def test_the_procfiles_command_serves_on_the_port_it_is_given(tmp_path: Path, opens: Opens) -> None:
    [line] = [line for line in (ROOT / "Procfile").read_text().splitlines() if line.startswith("web:")]
    command = ["sh", "-c", f"exec {line.removeprefix('web:').strip()}"]
    with started(tmp_path / "log", command, PATH=f"{BIN}:{os.environ['PATH']}") as server:
        receives(server, opens)
        assert server.stop() == 0


def test_flask_run_serves_in_development(tmp_path: Path, opens: Opens) -> None:
    command = [sys.executable, "-m", "flask", "run", "--port", "{port}"]
    with started(tmp_path / "log", command, APP_ENV="") as server:
        receives(server, opens)
        assert "mode=development" in server.log()
        client = opens(server)
        client.sign_in({"token": mint("ada")})
        at = time.monotonic()
        os.killpg(server.process.pid, signal.SIGINT)
        server.process.wait(5)
        assert time.monotonic() - at < 3
        assert client.rest() == []


def test_socket_server_run_serves_from_any_directory(tmp_path: Path, opens: Opens) -> None:
    with started(tmp_path / "log", [SCRIPT, "run"], CWD=tmp_path) as server:
        receives(server, opens)
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(5) == 0


def test_socket_server_run_refuses_bad_settings_as_gunicorn_does() -> None:
    status, output, errors = finish([SCRIPT, "run"], APP_ENV="production", PORT=free_port())
    assert status == 2
    assert "JWT_SECRET" in errors
    assert "API_KEYS" in errors
    assert "Traceback" not in output + errors
