"""Fixtures of the tests with a browser."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import unavailable
from tests.servers import ROOT, RunningServer, running

HERE = Path(__file__).resolve().parent
CLIENT_FILE = ROOT / "socket_server/web/client/socket.io.min.js"

Play = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def client_file() -> Path:
    """The path of the official client to which `make setup` copies it for the page."""
    if not CLIENT_FILE.is_file():
        unavailable("the page's Socket.IO client is missing: run make setup")
    return CLIENT_FILE


@pytest.fixture(scope="session")
def play(node: str, client_file: Path) -> Play:
    """Run a scenario (a script of this folder) in a browser. The options are its `task`; the result is what it returns."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None or not (ROOT / "tests/clients/node_modules/playwright-core").is_dir():
        unavailable("Chromium or its driver is not installed: apt install chromium, make setup")

    def run(scenario: str, **task: Any) -> dict[str, Any]:
        done = subprocess.run(
            [node, scenario, json.dumps({"browser": browser, **task})],
            cwd=HERE,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        seen: dict[str, Any] = json.loads(done.stdout)
        return seen

    return run


@pytest.fixture
def development_server(tmp_path: Path) -> Iterator[RunningServer]:
    """A server as `make run` starts it, without a secret or a key."""
    with running(tmp_path, APP_ENV="development", JWT_SECRET="", API_KEYS="", CLIENT_URL="") as started:
        yield started
