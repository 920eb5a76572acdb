"""BASE_PATH: a proxy that does not strip its prefix needs no rewriting."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.clients.official import TRANSPORTS, Clients
from tests.servers import ROOT, SECRET, RunningServer, environment, free_port, mint, running, wait_for
from tests.workers import several_workers


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(tmp_path_factory.mktemp("pushed"), BASE_PATH="/push/", DEMO=1) as server:
        yield server


def test_the_official_client_connects_below_the_base_path(pushed: RunningServer, clients: Clients, transport: str) -> None:
    connection = clients.open(pushed.url, **TRANSPORTS[transport], path="/push/socket.io/", auth={"token": mint("7")})
    connection.wait("auth_success")
    body = {"userIds": ["7"], "notification": {"title": "below"}}
    answer = requests.post(f"{pushed.url}/push/broadcast", json=body, headers=pushed.api_headers, timeout=10)
    assert answer.json()["totalSockets"] == 1
    assert connection.wait("notification").args[0] == {"title": "below"}


@pytest.mark.parametrize("path", ["/health", "/stats", "/broadcast", "/socket.io/?EIO=4&transport=polling", "/", "/pushy"])
def test_nothing_is_served_beside_it(pushed: RunningServer, path: str) -> None:
    assert requests.get(pushed.url + path, timeout=10).status_code == 404


@pytest.mark.parametrize("user", ["7", "a/b", "..", "%2F"])
def test_paths_of_users_work_below_it(pushed: RunningServer, user: str) -> None:
    command = [str(Path(sys.executable).with_name("socket-server")), "inbox", user, "--server", f"{pushed.url}/push"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(JWT_SECRET=SECRET, API_KEYS=pushed.api_key),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_page_and_its_files_are_below_it(pushed: RunningServer) -> None:
    for path in ("/push", "/push/"):
        page = requests.get(pushed.url + path, timeout=10)
        assert page.status_code == 200
        assert '"/push/demo/static/demo.js"' in page.text
        assert '"/demo/' not in page.text
    assert requests.get(f"{pushed.url}/push/demo/static/demo.js", timeout=10).status_code == 200


def test_flask_run_serves_below_it_too(tmp_path: Path) -> None:
    port = free_port()
    settings = {"BASE_PATH": "/push", "FLASK_APP": str(ROOT / "wsgi.py"), "FLASK_RUN_PORT": port, "JWT_SECRET": SECRET}
    command = [sys.executable, "-m", "flask", "run"]
    with subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, **environment(**settings)}, stderr=subprocess.DEVNULL
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"

            def serves() -> bool:
                try:
                    return requests.get(f"{url}/push/health", timeout=2).ok
                except requests.RequestException:
                    return False

            wait_for(serves, 20, what="flask run")
            assert requests.get(f"{url}/health", timeout=5).status_code == 404
            polling = requests.get(f"{url}/push/socket.io/?EIO=4&transport=polling", timeout=5)
            assert polling.text.startswith("0{")
        finally:
            process.terminate()


def test_polling_clients_of_several_workers_stay_below_it(
    tmp_path: Path, tool: Callable[[str], str], own_clients: Clients
) -> None:
    with several_workers(tmp_path, tool, 2, BASE_PATH="/push") as server:
        users = [f"user-{number}" for number in range(12)]
        connections = [
            own_clients.open(server.url, **TRANSPORTS["polling"], path="/push/socket.io/", auth={"token": mint(user)})
            for user in users
        ]
        for connection in connections:
            connection.wait("auth_success")
        body = {"userIds": users, "notification": {"title": "below"}}
        answer = requests.post(f"{server.url}/push/broadcast", json=body, headers=server.api_headers, timeout=10)
        assert answer.json()["totalSockets"] == len(users)
        for connection in connections:
            connection.wait("notification")
