"""The command line, beside a real server."""

import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.conftest import Opens
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
)

SCRIPT = str(BIN / "socket-server")


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


def test_the_command_that_a_development_server_names_works_as_it_is_printed(tmp_path: Path) -> None:
    for path in ("/usr/bin:/bin", f"{BIN}:/usr/bin:/bin"):
        with running(tmp_path, APP_ENV="development", JWT_SECRET="", API_KEYS="", PATH=path) as server:
            (line,) = [line for line in server.log().splitlines() if "a token for user 123: " in line]
            command = line.partition("a token for user 123: ")[2]
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                cwd=ROOT,
                env=environment(PATH=path, PORT=server.port),
                capture_output=True,
                text=True,
                timeout=30,
            )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count(".") == 2


def test_output_to_a_reader_that_has_ended_is_no_error(shared_server: RunningServer) -> None:
    shared_server.broadcast(["ada"], {"title": "x" * 1_000})
    command = f"{SCRIPT} inbox ada --server {shared_server.url} | true"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=ROOT,
        env=environment(API_KEYS=API_KEY),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")


SETTINGS_FILES = {"missing": None, "not UTF-8 in line 2": b"A=1\nB=\xff\n", "malformed in line 2": b"A=1\nB C\n"}
ENTRY_POINTS = {
    "gunicorn": [str(BIN / "gunicorn"), "wsgi:app"],
    "run": [SCRIPT, "run"],
    "flask": [str(BIN / "flask"), "run"],
}


@pytest.mark.parametrize("command", ENTRY_POINTS.values(), ids=ENTRY_POINTS)
@pytest.mark.parametrize("why", SETTINGS_FILES)
def test_a_bad_file_of_settings_is_one_message_and_status_2(tmp_path: Path, command: list[str], why: str) -> None:
    path = tmp_path / "settings"
    content = SETTINGS_FILES[why]
    if content is not None:
        path.write_bytes(content)
    status, output, errors = finish(command, ENV_FILE=path, PORT=free_port(), FLASK_APP=ROOT / "wsgi.py")
    message = output + errors
    assert status == 2, message
    assert message.count(f"the file {path}") == 1
    assert (why if content is not None else "ENV_FILE") in message
    assert "Traceback" not in message
