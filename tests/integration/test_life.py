"""Starting, stopping, and every door: gunicorn, the Procfile, `flask run`, the command line (contract, 1 and 8)."""

import contextlib
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.conftest import Opens, OpensRaw
from tests.integration.entry_points import receives
from tests.integration.protocol import CLOSE, TRANSPORTS, PollingClient, RawWebSocket, WebSocketClient
from tests.servers import (
    API_KEY,
    BIN,
    PRODUCTION,
    ROOT,
    SECRET,
    RunningServer,
    environment,
    finish,
    free_port,
    mint,
    running,
    start,
    wait_for,
)

GUNICORN = [str(BIN / "gunicorn"), "wsgi:app"]
SCRIPT = str(BIN / "socket-server")
HANDSHAKE = "/socket.io/?EIO=4&transport=polling"


@contextlib.contextmanager
def started(log_file: Path, command: list[str], **settings: Any) -> Iterator[RunningServer]:
    """Run a server by this command; at the end, whatever is left of it is killed."""
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


# What does not start


def test_production_without_secrets_does_not_start_and_says_what_is_missing() -> None:
    status, output, errors = finish(GUNICORN, APP_ENV="production", PORT=free_port())
    message = output + errors
    assert status == 2
    assert message.count("cannot start") == 1
    assert "JWT_SECRET" in message
    assert "API_KEYS" in message
    assert "secrets.token_urlsafe" in message  # how to make one
    assert "Traceback" not in message


def test_gunicorn_without_app_env_is_production() -> None:
    status, _, errors = finish(GUNICORN, PORT=free_port())
    assert status == 2
    assert "JWT_SECRET is missing" in errors


BAD = {
    "PORT": "abc",
    "CLIENT_URL": "*",
    "JWT_PUBLIC_KEY": "nonsense",
    "JWT_JWKS_URL": "http://id.example.com/jwks",
    "JWT_LEEWAY": "-1",
    "JWT_COOKIE": "a cookie",
    "API_KEYS": "none,key",
    "PING_INTERVAL": "0",
    "PING_TIMEOUT": "nan",
    "AUTH_TIMEOUT": "soon",
    "MAX_CONNECTIONS": "1.5",
    "MAX_CONNECTIONS_PER_USER": "0",
    "MAX_MESSAGE_BYTES": "-5",
    "MAX_BODY_BYTES": "1e6",
    "DRAIN_SECONDS": "inf",
    "LOG_LEVEL": "loud",
    "LOG_FORMAT": "xml",
    "SSL_CERT": "/nowhere/cert.pem",
    "TRUSTED_PROXIES": "everyone",
    "WEB_CONCURRENCY": "2",
}


def test_all_bad_values_are_listed_at_once() -> None:
    status, output, errors = finish(GUNICORN, APP_ENV="production", JWT_SECRET=SECRET, **BAD)
    message = output + errors
    assert status == 2
    assert message.count("cannot start") == 1
    assert "Traceback" not in message
    assert {name for name in BAD if f"- {name} " in message} == set(BAD)
    assert SECRET not in message


@pytest.mark.parametrize(
    ("setting", "value"),
    [("APP_ENV", "staging"), ("JWT_ALGORITHMS", "none"), ("JWT_ALGORITHMS", "RS256"), ("SSL_KEY", "/etc/hosts")],
)
def test_a_bad_value_stops_the_start(setting: str, value: str) -> None:
    status, output, errors = finish(GUNICORN, **PRODUCTION | {"PORT": free_port(), setting: value})
    assert status == 2
    assert f"- {setting} " in output + errors
    assert "Traceback" not in output + errors


@pytest.mark.parametrize(
    ("arguments", "settings", "word"),
    [
        (["-w", "2"], {}, "set REDIS_URL"),
        ([], {"WEB_CONCURRENCY": "2"}, "WEB_CONCURRENCY"),
        ([], {"GUNICORN_CMD_ARGS": "--workers=3"}, "workers"),
        (["-k", "sync"], {}, "worker-class"),
        (["-k", "gevent"], {}, "worker-class"),
        (["--preload"], {}, "--preload"),
    ],
)
def test_what_would_break_delivery_is_refused(arguments: list[str], settings: dict[str, str], word: str) -> None:
    status, output, errors = finish([*GUNICORN, *arguments], **PRODUCTION, PORT=free_port(), **settings)
    message = output + errors
    assert status != 0
    assert message.count("cannot start") == 1
    assert word in message
    assert "Traceback" not in message


def test_a_certificate_that_is_none_does_not_leave_half_a_server(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("nonsense")
    certificate = {"SSL_CERT": str(tmp_path / "cert.pem"), "SSL_KEY": str(tmp_path / "key.pem")}
    status, output, errors = finish(GUNICORN, timeout_s=5, **PRODUCTION, PORT=free_port(), **certificate)
    assert status != 0
    assert "SSL_CERT" in output + errors
    assert "Traceback" not in output + errors


def test_the_environment_wins_over_the_env_file(tmp_path: Path, opens: Opens) -> None:
    env_file = tmp_path / "settings.env"
    env_file.write_text(
        f'JWT_SECRET="{SECRET}"\nAPI_KEYS=key-of-the-file-0123456789\nPORT=1\nCLIENT_URL=http://file.example.com\n'
    )
    port = free_port()
    settings = {"PORT": port, "HOST": "127.0.0.1", "DRAIN_SECONDS": 0, "CLIENT_URL": "http://environment.example.com"}
    server = start(tmp_path / "log", GUNICORN, port, ENV_FILE=env_file, **settings)
    try:
        allowed = server.get("/health", headers={"Origin": "http://environment.example.com"})
        assert "Access-Control-Allow-Origin" in allowed.headers
        assert opens(server).sign_in({"token": mint("ada")})["userId"] == "ada"  # the rest is the file's
        server.api_key = "key-of-the-file-0123456789"
        assert server.broadcast(["ada"], {}).json()["totalSockets"] == 1
    finally:
        assert server.stop() == 0
        server.session.close()


# SIGTERM


def collect_closes(sockets: list[RawWebSocket], until_s: float) -> dict[int, tuple[float, int]]:
    """Read all sockets at once; return index -> (when, code) of each CLOSE frame."""
    closes: dict[int, tuple[float, int]] = {}
    with selectors.DefaultSelector() as selector:
        for index, raw in enumerate(sockets):
            selector.register(raw.sock, selectors.EVENT_READ, index)
        while len(closes) < len(sockets) and time.monotonic() < until_s:
            for key, _ in selector.select(0.2):
                raw = sockets[key.data]
                frame = raw.frame()
                while frame is not None and frame[0] != CLOSE and raw.buffer:
                    frame = raw.frame()
                if frame is not None and frame[0] != CLOSE:
                    continue
                code = -1 if frame is None else int.from_bytes(frame[1][:2], "big")
                closes[key.data] = (time.monotonic(), code)
                selector.unregister(key.fileobj)
                raw.sock.close()
    return closes


def test_sigterm_drains_evenly_with_1012_and_ends_with_status_0(tmp_path: Path) -> None:
    count, drain_s = 500, 3
    with running(tmp_path, DRAIN_SECONDS=drain_s) as server, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(RawWebSocket(server.port)) for _ in range(count)]
        for number, raw in enumerate(sockets):
            raw.sign_in(mint(number))
        polling = stack.enter_context(PollingClient(server))
        polling.sign_in({"token": mint("poller")})
        polled: list[str] = []
        waiting = threading.Thread(target=lambda: polled.append(polling.poll().text))
        waiting.start()
        server.wait_for_connections(count + 1)

        refused: dict[str, Any] = {}

        def knock() -> None:
            wait_for(lambda: server.get("/health").status_code == 503, 2, "draining")
            refused["health"] = server.get("/health").json()
            refused["live"] = server.get("/health/live").status_code
            refused["polling"] = requests.get(server.url + HANDSHAKE, timeout=5)
            with RawWebSocket(server.port) as raw:
                refused["websocket"] = raw.status
            refused["broadcast"] = server.broadcast([str(count - 1)], {"title": "late"}).status_code

        signalled = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        knocking = threading.Thread(target=knock)
        knocking.start()
        closes = collect_closes(sockets, signalled + 5)
        status = server.process.wait(max(0.1, signalled + 5 - time.monotonic()))
        assert status == 0
        knocking.join()
        waiting.join()

        assert refused["health"]["status"] == "draining"
        assert refused["live"] == 200
        assert refused["polling"].status_code == 503
        assert int(refused["polling"].headers["Retry-After"]) >= 1
        assert refused["websocket"] == 503
        assert refused["broadcast"] == 200  # who is still connected is still served

        assert len(closes) == count
        assert {code for _, code in closes.values()} == {1012}
        times = sorted(when - signalled for when, _ in closes.values())
        assert times[-1] <= drain_s + 1
        sixths = [
            sum(1 for when in times if low <= when - times[0] < low + drain_s / 6) for low in (0, 0.5, 1, 1.5, 2, 2.5)
        ]
        assert all(count / 6 * 0.5 < each < count / 6 * 1.6 for each in sixths), sixths
        assert polled
        assert polled[0].split("\x1e")[-1] == "1"
        assert "Traceback" not in server.log()


def post_of(broadcast: dict[str, Any]) -> bytes:
    """Return a whole POST /broadcast."""
    body = json.dumps(broadcast).encode()
    head = (
        f"POST /broadcast HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {API_KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@pytest.mark.parametrize("drain_s", [2, 0])
def test_a_request_in_flight_at_sigterm_is_answered(tmp_path: Path, drain_s: int) -> None:
    request = post_of({"userIds": ["1"], "notification": {"title": "in flight"}})
    with running(tmp_path, DRAIN_SECONDS=drain_s) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock, RawWebSocket(server.port) as raw:
            raw.sign_in(mint("somebody"))
            sock.sendall(request[:-10])
            wait_for(lambda: server.get("/health").ok, what="health")
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: "draining" in server.log(), what="the drain")
            time.sleep(0.2)
            sock.sendall(request[-10:])
            answer = sock.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b'"success":true' in answer.replace(b" ", b"")
        assert server.process.wait(5) == 0


def test_who_has_come_in_when_the_server_stops_is_answered_and_who_comes_later_is_refused(tmp_path: Path) -> None:
    """Nobody's request is taken and then dropped: a proxy cannot send a post again, but it can go on to the next server."""
    answers: list[bytes] = []
    with running(tmp_path, DRAIN_SECONDS=0.3) as server:

        def knock() -> None:
            """Post in one new connection after the other, until nobody opens."""
            while True:
                try:
                    sock = socket.create_connection(("127.0.0.1", server.port), timeout=10)
                except ConnectionError:
                    return
                with sock:
                    try:
                        sock.sendall(post_of({"userIds": ["1"], "notification": {}}))
                        answers.append(sock.recv(65_536)[:12])
                    except OSError as error:
                        answers.append(repr(error).encode())

        knocking = [threading.Thread(target=knock) for _ in range(6)]
        for each in knocking:
            each.start()
        wait_for(lambda: len(answers) > 300, what="some posts")
        assert server.stop() == 0
        for each in knocking:
            each.join()
    assert set(answers) == {b"HTTP/1.1 200"}


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_stops_sends_what_it_has_answered(tmp_path: Path, sig: signal.Signals) -> None:
    """Nothing is kept here, so nobody could recover: so many as an answer counts have got it."""
    received: dict[socket.socket, bytearray] = {}
    answers: list[dict[str, Any]] = []
    users = [str(number) for number in range(400)]
    with (
        running(tmp_path, INBOX_URL="memory://", DRAIN_SECONDS=0.5) as server,
        contextlib.ExitStack() as stack,
        selectors.DefaultSelector() as selector,
    ):
        for user in users:
            raw = stack.enter_context(RawWebSocket(server.port))
            raw.sign_in(mint(user))
            selector.register(raw.sock, selectors.EVENT_READ)
            received[raw.sock] = bytearray()

        def publish() -> None:
            """Post, one after the other, until nobody answers."""
            post = post_of({"userIds": users, "notification": {"some": "x" * 200}, "ttl": 0})
            with contextlib.suppress(OSError, json.JSONDecodeError):
                while True:
                    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
                        answer = b"Connection: keep-alive"
                        while b"Connection: close" not in answer:
                            sock.sendall(post)
                            answer = sock.recv(65_536)
                            answers.append(json.loads(answer.partition(b"\r\n\r\n")[2]))

        publishing = [threading.Thread(target=publish) for _ in range(3)]
        for each in publishing:
            each.start()
        stopping = None
        while selector.get_map():
            for key, _ in selector.select(10):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                try:
                    data = sock.recv(65_536)
                except ConnectionResetError:
                    data = b""
                received[sock] += data
                if not data:
                    selector.unregister(sock)
            if stopping is None and len(answers) > 100:
                stopping = threading.Thread(target=server.stop, args=(sig,))
                stopping.start()
        for each in publishing:
            each.join()
        assert stopping is not None
        stopping.join()
    got = Counter(offset for data in received.values() for offset in re.findall(rb',"(\d+)"\]', data))
    counted = {answer["id"]: answer["totalSockets"] for answer in answers if answer.get("success")}
    assert len(counted) > 100
    assert {
        offset: (count, got[offset.encode()]) for offset, count in counted.items() if got[offset.encode()] < count
    } == {}


def test_connections_are_told_before_the_process_ends(tmp_path: Path, opens: Opens) -> None:
    with running(tmp_path, DRAIN_SECONDS=0) as server:
        websocket, polling = (opens(server, transport) for transport in TRANSPORTS)
        for client in (websocket, polling):
            client.sign_in({"token": mint("ada")})
        rest: list[Any] = []
        reading = threading.Thread(target=lambda: rest.extend(polling.rest()))
        reading.start()
        time.sleep(0.1)  # nothing tells that the poll waits
        assert server.stop() == 0
        reading.join(5)
        assert rest == []  # the transport closes without a Socket.IO DISCONNECT: clients come back by themselves
        assert polling.closed_politely
        assert websocket.rest() == []
        assert isinstance(websocket, WebSocketClient)
        assert websocket.close_code == 1012


# SIGINT, SIGHUP


def test_ctrl_c_ends_at_once_with_status_0_and_no_traceback(tmp_path: Path) -> None:
    with running(tmp_path, DRAIN_SECONDS=10) as server, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(RawWebSocket(server.port)) for _ in range(50)]
        for raw in sockets:
            raw.sign_in(mint("ada" + str(id(raw))))
        at = time.monotonic()
        os.killpg(server.process.pid, signal.SIGINT)  # a terminal sends it to the whole group
        assert server.process.wait(5) == 0
        assert time.monotonic() - at < 1
        assert {raw.close_code() for raw in sockets} == {1012}
        assert "Traceback" not in server.log()


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


def test_a_reload_turns_nobody_away(tmp_path: Path, opens: Opens) -> None:
    """While the old worker says goodbye to its connections, the new one is there for everybody else."""
    with running(tmp_path, DRAIN_SECONDS=2) as server:
        for _ in range(5):
            opens(server).sign_in({"token": mint("ada")})
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: server.log().count(" ready ") == 2 and "draining" in server.log(), what="the new worker")
        statuses = [requests.get(server.url + HANDSHAKE, timeout=10).status_code for _ in range(40)]
        assert set(statuses) == {200}, statuses
        assert {requests.get(f"{server.url}/health", timeout=10).status_code for _ in range(40)} == {200}


def test_a_new_master_that_was_given_up_takes_nobody_over(tmp_path: Path, opens: Opens) -> None:
    """SIGUSR2, and the new version is no good: its master is killed. The old one stops as if it had never been there."""
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


def children_of(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def test_while_the_new_worker_loads_nobody_waits_for_it(tmp_path: Path) -> None:
    """gunicorn tells the old worker to stop as soon as it has forked the new one, which then has the app to load."""
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


def test_one_worker_stays_one_worker(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        server.process.send_signal(signal.SIGTTIN)
        wait_for(lambda: "staying at one" in server.log(), what="the refusal")
        assert len(children_of(server.process.pid)) == 1
        assert server.get("/health").status_code == 200


def test_no_control_socket_is_created(tmp_path: Path) -> None:
    """Nor any other that listens, but for the one by which workers hand connections to each other."""
    with running(tmp_path, HOME=tmp_path, XDG_RUNTIME_DIR=tmp_path) as server:
        assert [path for path in tmp_path.rglob("*") if path.is_socket()] == []
        owned = set()
        for pid in (server.process.pid, *children_of(server.process.pid)):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    owned.add(os.readlink(descriptor).removeprefix("socket:[").removesuffix("]"))
        for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
            fields = line.split()
            listening = int(fields[3], 16) & 0x10000
            assert not (listening and fields[6] in owned) or fields[7].startswith("@socket-server-"), line


# Doors


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


# The command line


def test_token_mints_what_the_server_takes(shared_server: RunningServer, opens: Opens) -> None:
    status, output, errors = finish([SCRIPT, "token", "ada", "--ttl", "60"], JWT_SECRET=SECRET)
    assert (status, errors) == (0, "")
    success = opens(shared_server).sign_in({"token": output.strip(), "userId": "ada"})
    assert 50 < success["expiresAt"] - time.time() <= 61


def test_send_sends_and_prints_the_answer(shared_server: RunningServer, opens: Opens) -> None:
    client = opens(shared_server)
    client.sign_in({"token": mint("ada")})
    options = ["--title-he", "שלום", "--title-en", "Hello", "--body", "Text", "--priority", "high", "--url", "/lev"]
    options += ["--action-key", "updateTask", "--data", '{"any": ["thing"]}', "--server", shared_server.url]
    status, output, errors = finish([SCRIPT, "send", "ada", "ben", *options], API_KEYS=API_KEY)
    assert (status, errors) == (0, "")
    answer = json.loads(output)
    assert (answer["deliveredTo"], answer["requestedUsers"]) == (1, 2)
    assert client.event() == [
        "notification",
        {
            "title": {"he": "שלום", "en": "Hello"},
            "body": "Text",
            "metadata": {"url": "/lev", "priority": "high"},
            "actionKey": "updateTask",
            "data": {"any": ["thing"]},
        },
        answer["id"],
    ]


def test_send_fails_loudly(shared_server: RunningServer) -> None:
    status, output, _ = finish([SCRIPT, "send", "ada", "--title", "x", "--key", "wrong", "--server", shared_server.url])
    assert status == 1
    assert json.loads(output)["error"] == "Unauthorized"
    status, _, errors = finish([SCRIPT, "send", "ada", "--server", f"http://127.0.0.1:{free_port()}"])
    assert status == 1
    assert "no server answers" in errors
    assert "Traceback" not in errors


def test_listen_prints_what_arrives_and_ends_after_count(shared_server: RunningServer) -> None:
    command = [SCRIPT, "listen", "ada", "--count", "1", "--server", shared_server.url]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(JWT_SECRET=SECRET), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            shared_server.wait_for_connections(1)
            answer = shared_server.broadcast(["ada"], {"title": "שלום"}).json()
            output, errors = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert json.loads(output) == {"id": answer["id"], "notification": {"title": "שלום"}}
    assert "שלום" in output
    assert "listening as user ada" in errors
    shared_server.wait_for_connections(0)


def test_listen_says_why_it_was_refused(shared_server: RunningServer) -> None:
    token = mint("ada", lifetime_s=-60)
    status, output, errors = finish([SCRIPT, "listen", "ada", "--token", token, "--server", shared_server.url])
    assert status == 1
    assert output == ""
    assert "expired_token" in errors
    assert "Traceback" not in errors


def test_listen_ends_with_ctrl_c(shared_server: RunningServer) -> None:
    command = [SCRIPT, "listen", "ada", "--server", shared_server.url]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(JWT_SECRET=SECRET), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            shared_server.wait_for_connections(1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode in (0, 130)
    assert "Traceback" not in errors
    shared_server.wait_for_connections(0)


def test_doctor_finds_nothing_where_all_is_well() -> None:
    settings = PRODUCTION | {"HOST": "127.0.0.1", "PORT": str(free_port()), "MAX_CONNECTIONS": "100"}
    status, output, errors = finish([SCRIPT, "doctor"], **settings)
    assert status == 0, output
    assert "FIX" not in output
    assert "nothing to fix" in errors


def test_doctor_takes_a_running_server_for_what_it_is(shared_server: RunningServer) -> None:
    settings = PRODUCTION | {"HOST": "127.0.0.1", "PORT": str(shared_server.port), "MAX_CONNECTIONS": "100"}
    status, output, _ = finish([SCRIPT, "doctor"], **settings)
    assert status == 0
    assert "already runs" in output


def test_doctor_names_what_to_fix() -> None:
    status, output, _ = finish([SCRIPT, "doctor"], APP_ENV="production", LOG_LEVEL="loud")
    assert status == 1
    for name in ("JWT_SECRET", "API_KEYS", "LOG_LEVEL"):
        assert any(line.startswith("FIX") and name in line for line in output.splitlines()), output
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        settings = PRODUCTION | {"HOST": "127.0.0.1", "PORT": port, "MAX_CONNECTIONS": "9000000"}
        status, output, errors = finish([SCRIPT, "doctor"], **settings)
    assert status == 1
    assert any(line.startswith("FIX") and port in line for line in output.splitlines())
    assert any(line.startswith("FIX") and "MAX_CONNECTIONS" in line for line in output.splitlines())
    assert "2 to fix" in errors
    assert SECRET not in output + errors


def test_version_and_help_need_no_settings() -> None:
    for arguments in (["--version"], ["--help"], ["send", "--help"]):
        status, output, _ = finish([SCRIPT, *arguments])
        assert status == 0
        assert "socket-server" in output


def test_a_client_that_is_gone_before_it_is_greeted_is_no_error(server: RunningServer, opens_raw: OpensRaw) -> None:
    """As after a server has stood still: who waited for it has given up by the time that it reads."""
    request = (
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    os.killpg(server.process.pid, signal.SIGSTOP)
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as gone:
            gone.sendall(request.encode())
    os.killpg(server.process.pid, signal.SIGCONT)
    opens_raw(server).sign_in(mint())
    assert "Traceback" not in server.log(), server.log()
