"""Several workers on one port: a request finds its session whichever worker it reaches."""

import contextlib
import http.client
import os
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.certificates import self_signed
from tests.integration.conftest import Opens, OpensRaw
from tests.integration.entry_points import receives
from tests.integration.protocol import TEXT, PollingClient, encode_frame
from tests.servers import RunningServer, mint, running, wait_for
from tests.workers import COUNT, handover_sockets, open_files, several_workers, tag_of, worker_of, workers

UNKNOWN_SID = {"code": 1, "message": "Session ID unknown"}

Tool = Callable[[str], str]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Iterator[RunningServer]:
    with several_workers(tmp_path_factory.mktemp("workers"), tool) as server:
        yield server


@pytest.fixture
def everywhere(shared: RunningServer, opens: Opens) -> list[PollingClient]:
    """Polling clients, at least two in each worker."""
    return spread(shared, opens)


def spread(server: RunningServer, opens: Opens) -> list[PollingClient]:
    found: list[PollingClient] = []

    def enough() -> bool:
        opened = opens(server, "polling")
        assert isinstance(opened, PollingClient)
        found.append(opened)
        counts = Counter(tag_of(each.handshake["sid"]) for each in found)
        return len(counts) == COUNT and min(counts.values()) >= 2

    wait_for(enough, what="a session in each worker")
    return found


class OneConnection:
    """One connection that carries the requests of many clients, as a proxy's does. It is never reopened."""

    def __init__(self, server: RunningServer) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        self._connection.connect()
        self._connection.auto_open = 0

    def __enter__(self) -> "OneConnection":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        self._connection.request(method, path, body, {"Content-Type": "text/plain"})
        answer = self._connection.getresponse()
        return answer.status, answer.read().decode()

    def of(self, sid: str, body: str | None = None) -> tuple[int, str]:
        """Send a POST of this session, or a GET if there is no body."""
        return self.ask("GET" if body is None else "POST", path(sid), body)


def path(sid: str) -> str:
    return f"/socket.io/?EIO=4&transport=polling&sid={sid}"


def sids(clients: list[PollingClient]) -> list[str]:
    return [each.handshake["sid"] for each in clients]


# Clients


def test_every_kind_of_connection_receives(shared: RunningServer, opens: Opens) -> None:
    for _ in range(COUNT):
        receives(shared, opens)


def test_one_connection_carries_the_requests_of_sessions_of_all_workers(
    shared: RunningServer, everywhere: list[PollingClient]
) -> None:
    with OneConnection(shared) as connection:
        for number, sid in enumerate(sids(everywhere)):
            assert connection.of(sid, f'40{{"token":"{mint(f"user-{number}")}"}}') == (200, "ok")
        for sid in sids(everywhere):
            assert connection.ask("GET", "/health/live")[0] == 200
            status, text = connection.of(sid)
            assert (status, "auth_success" in text) == (200, True)
        users = [f"user-{number}" for number, _ in enumerate(everywhere)]
        answer = shared.broadcast(users, {"title": "x" * 50_000}).json()
        assert answer["totalSockets"] == len(users)
        for sid in sids(everywhere):
            status, text = connection.of(sid)
            assert (status, "x" * 50_000 in text) == (200, True)
        for sid in sids(everywhere):
            assert connection.of(sid, "1") == (200, "ok")
    shared.wait_for_connections(0)


def test_a_handed_over_poll_ends_with_its_client(shared: RunningServer, everywhere: list[PollingClient]) -> None:
    """The worker of the session notices that the client closes, as if it had accepted its connection."""
    for number, each in enumerate(everywhere):
        each.sign_in({"token": mint(f"leaver-{number}")})
    for sid in sids(everywhere):
        with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as sock:
            sock.sendall(f"GET {path(sid)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            time.sleep(0.05)  # nothing tells that the poll waits
    shared.wait_for_connections(0, 5)


def test_frames_behind_an_upgrade_request_are_handed_over(
    shared: RunningServer, everywhere: list[PollingClient], opens_raw: OpensRaw
) -> None:
    behind = encode_frame(TEXT, b"2probe") + encode_frame(TEXT, b"5") + encode_frame(TEXT, b"40")
    for sid in sids(everywhere):
        raw = opens_raw(shared, query=f"EIO=4&transport=websocket&sid={sid}", behind=behind)
        assert raw.status == 101
        assert raw.text() == "3probe"
        while not (text := raw.text()).startswith("40{"):
            assert text == "6", "the waiting poll is answered"


def test_a_pipelined_request_must_be_sent_again_after_a_handover(
    shared: RunningServer, everywhere: list[PollingClient]
) -> None:
    for sid in sids(everywhere):
        request = f"POST {path(sid)} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n40"
        behind = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
        for cut in (len(behind), 15):
            with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as sock:
                sock.sendall((request + behind[:cut]).encode())
                answers = b""
                while b"ok" not in answers:
                    answers += sock.recv(10_000)
                with contextlib.suppress(OSError):
                    sock.sendall(behind[cut:].encode())
                    sock.shutdown(socket.SHUT_WR)
                    answers += b"".join(iter(lambda: sock.recv(10_000), b""))
                # If the session is in the accepting worker, both are answered.
                assert (b"Connection: close" in answers) == (answers.count(b"HTTP/1.1 200 ") == 1), answers


def test_connections_spread_over_the_workers(shared: RunningServer, opens: Opens) -> None:
    counts = Counter(tag_of(opens(shared, "websocket").handshake["sid"]) for _ in range(150))
    assert len(counts) == COUNT
    assert max(counts.values()) < 0.7 * 150, counts


# Unknown sessions


def test_a_thousand_forged_session_ids_are_unknown_and_leave_nothing_open(
    shared: RunningServer, everywhere: list[PollingClient]
) -> None:
    tags = {tag_of(sid) for sid in sids(everywhere)}
    before = [len(open_files(pid)) for pid in workers(shared)]
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(OneConnection(shared)) for _ in range(4)]
        for number in range(334):
            for sid in (*(f"forged-{number}.{tag}" for tag in tags), f"forged.{number:010x}", f"{number}.{'z' * 10}"):
                method, body = ("POST", "40") if number % 2 else ("GET", None)
                status, text = connections[number % 4].ask(method, path(sid), body)
                assert (status, '"code":1' in text) == (400, True), sid
    wait_for(lambda: [len(open_files(pid)) for pid in workers(shared)] <= before, what="as few open files as before")
    everywhere[0].sign_in({"token": mint("ada")})


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("EIO=4&transport=polling", {"Origin": "https://evil.example"}, 403),
        ("EIO=4&transport=carrier-pigeon", {}, 400),
        ("EIO=4&transport=polling", {"Content-Length": "10000000"}, 413),
    ],
)
def test_a_request_is_refused_whichever_worker_has_its_session(
    shared: RunningServer, everywhere: list[PollingClient], query: str, headers: dict[str, str], status: int
) -> None:
    for sid in sids(everywhere):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", shared.port, timeout=10)) as connection:
            connection.request("POST", f"/socket.io/?{query}&sid={sid}", headers=headers)
            assert connection.getresponse().status == status


def test_garbage_at_the_handover_sockets_does_no_harm(shared: RunningServer, everywhere: list[PollingClient]) -> None:
    ours = set().union(*(open_files(pid) for pid in workers(shared)))
    names = [name for number, name in handover_sockets().items() if f"socket:[{number}]" in ours]
    assert len(names) == COUNT
    with contextlib.ExitStack() as stack:
        for name in names:
            for garbage in (b"", b"\x00", b"GET / HTTP/1.1\r\n\r\n", struct.pack("!I", 100), os.urandom(100_000)) * 20:
                unix = stack.enter_context(socket.socket(socket.AF_UNIX))
                unix.settimeout(5)
                unix.connect("\0" + name[1:])
                with contextlib.suppress(OSError):
                    socket.send_fds(unix, [garbage or b"\x00"], [unix.fileno()] if garbage else [])
        for number, each in enumerate(everywhere):
            assert each.sign_in({"token": mint(f"fine-{number}")})


# Workers that come and go


def post(server: RunningServer, sid: str) -> requests.Response:
    """Send a packet of this session over a connection of its own."""
    return requests.post(server.url + path(sid), data="6", timeout=10)


def test_sessions_of_a_killed_worker_are_unknown_at_once_and_others_are_served(
    tmp_path: Path, tool: Tool, opens: Opens
) -> None:
    with several_workers(tmp_path, tool) as server:
        everywhere = sids(spread(server, opens))
        killed = tag_of(everywhere[0])
        os.kill(worker_of(server, everywhere[0]), signal.SIGKILL)
        wait_for(
            lambda: not any(name.endswith(killed) for name in handover_sockets().values()), what="the end of the worker"
        )
        for sid in everywhere:
            answer = post(server, sid)
            if tag_of(sid) == killed:
                assert (answer.status_code, answer.json()) == (400, UNKNOWN_SID)
            else:
                assert (answer.status_code, answer.text) == (200, "ok")
        server.wait_for_log(" ready ", COUNT + 1)
        assert killed not in {tag_of(sid) for sid in sids(spread(server, opens))}

        stopped = next(sid for sid in everywhere if tag_of(sid) != killed)
        pid = worker_of(server, stopped)
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            answer = post(server, stopped)
            assert (answer.status_code, answer.json()) == (400, UNKNOWN_SID)
            assert time.monotonic() - began < 5
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_for(lambda: post(server, stopped).status_code == 200, what="the stopped worker's sessions")


def test_after_a_reload_sessions_of_the_old_worker_are_served_to_their_end(tmp_path: Path, opens: Opens) -> None:
    with running(tmp_path, DRAIN_SECONDS=5) as server:
        clients = [opens(server, "polling") for _ in range(20)]
        for number, each in enumerate(clients):
            each.sign_in({"token": mint(str(number))})
        ends: list[Any] = []

        def wait_for_the_end(each: PollingClient) -> None:
            each.http.headers["Connection"] = "close"  # so that its requests reach the new worker
            server.wait_for_log(" draining:", 1)
            answer = each.poll()
            ends.append((answer.status_code, answer.text.split("\x1e")[-1]))

        waiting = [threading.Thread(target=wait_for_the_end, args=(each,)) for each in clients]
        for thread in waiting:
            thread.start()
        server.process.send_signal(signal.SIGHUP)
        for thread in waiting:
            thread.join(20)
        assert ends == [(200, "1")] * len(clients)


def test_the_command_line_and_signals_set_the_number_of_workers(tmp_path: Path, tool: Tool) -> None:
    with several_workers(tmp_path, tool, 2, DRAIN_SECONDS=1, WEB_CONCURRENCY=1, GUNICORN_CMD_ARGS="--workers=2") as server:
        assert len(workers(server)) == 2
        server.process.send_signal(signal.SIGTTIN)
        server.wait_for_log(" ready ", 3)
        assert len(workers(server)) == 3
        server.process.send_signal(signal.SIGTTOU)
        server.wait_for_log(" draining:", 1)
        answers = [requests.get(server.url + "/health", timeout=10).json()["status"] for _ in range(10)]
        assert "draining" not in answers, "the worker that ends leaves new connections to the others"
        wait_for(lambda: len(workers(server)) == 2, what="the end of one worker")


# TLS in this process


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_every_kind_of_connection_receives_over_tls(tmp_path: Path, tool: Tool, opens: Opens) -> None:
    certificate, key = self_signed(tmp_path)
    with several_workers(tmp_path, tool, SSL_CERT=certificate, SSL_KEY=key) as server:
        for _ in range(COUNT):
            receives(server, opens)
        everywhere = spread(server, opens)
        with requests.Session() as one:
            one.verify = False
            for number, each in enumerate(everywhere):
                each.http = one
                each.sign_in({"token": mint(f"tls-{number}")})
                each.emit("ping", "x" * 60_000)
                assert each.event() == ["pong", None]
            for each in everywhere:
                each.close()
        server.wait_for_connections(0)
