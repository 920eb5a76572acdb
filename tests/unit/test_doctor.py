"""The checks of `socket-server doctor`."""

import http.server
import json
import os
import resource
import socket
import threading
from pathlib import Path
from typing import Any

import jwt
import pytest

from socket_server import doctor
from socket_server.config import Settings
from socket_server.doctor import Finding
from socket_server.errors import ConfigError
from tests.servers import free_port
from tests.unit.keypairs import private_key, short_rsa_key


def test_with_bad_settings_only_they_are_reported() -> None:
    def load() -> Settings:
        raise ConfigError(["PORT is bad", "HOST is bad"])

    python, *others = doctor.examine(load)
    assert python.good
    assert others == [Finding(False, "PORT is bad"), Finding(False, "HOST is bad")]


def test_a_good_machine_has_good_findings_only(tmp_path: Path) -> None:
    settings = Settings(
        host="127.0.0.1",
        port=free_port(),
        max_connections=1,
        jwt_secrets=("x" * 40,),
        inbox_url=f"sqlite:///{tmp_path}/inbox.db",
    )
    assert all(finding.good for finding in doctor.examine(lambda: settings))


def test_weak_settings_fail_and_deliberate_ones_are_notes() -> None:
    settings = Settings(
        host="127.0.0.1",
        port=free_port(),
        max_connections=1,
        api_open=True,
        inbox_url="memory://",
        jwt_secrets=("a-short-secret",),
    )
    found = list(doctor.examine(lambda: settings))
    assert any(finding.good and "API_KEYS=none" in finding.text for finding in found)
    assert [finding.text.split(" ")[0] for finding in found if not finding.good] == ["JWT_SECRET"]


def test_root_leaves_the_inbox_of_a_services_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "inbox.db"
    path.touch(0o600)
    if os.geteuid() == 0:
        os.chown(path, 65_534, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = doctor.inbox(Settings(inbox_url=f"sqlite:///{path}"))
    assert found.good
    assert f"belongs to user id {path.stat().st_uid}" in found.text
    assert path.stat().st_size == 0


def test_a_port_in_use_must_be_fixed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(host="127.0.0.1", port=taken.getsockname()[1])
        found = doctor.port(settings)
    assert not found.good
    assert "PORT" in found.text
    assert doctor.port(settings).good


def test_an_address_of_another_machine_must_be_fixed() -> None:
    found = doctor.port(Settings(host="192.0.2.1", port=free_port()))
    assert not found.good


def test_too_low_a_limit_of_open_files_must_be_fixed() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        pytest.skip("this process may open any number of files")
    assert not doctor.descriptors(Settings(max_connections=hard)).good
    in_development = doctor.descriptors(Settings(app_env="development", max_connections=hard))
    assert in_development.good
    assert in_development.text.startswith("note: the hard limit of open files")
    assert doctor.descriptors(Settings(max_connections=1)).good


def test_an_inbox_that_cannot_be_written_must_be_fixed(tmp_path: Path) -> None:
    (tmp_path / "data").touch()  # a file where its directory should be
    settings = Settings(inbox_url=f"sqlite:///{tmp_path}/data/inbox.db")
    found = doctor.inbox(settings)
    assert not found.good
    assert "INBOX_URL" in found.text
    (tmp_path / "data").unlink()
    assert doctor.inbox(settings).good


class _Provider(http.server.BaseHTTPRequestHandler):
    """Answers with a key set, an empty one, half of one, or one with a short RSA key."""

    def do_GET(self) -> None:
        key: Any = jwt.algorithms.ECAlgorithm.to_jwk(private_key("P-256").public_key(), as_dict=True)
        if self.path == "/short":
            key = jwt.algorithms.RSAAlgorithm.to_jwk(short_rsa_key(), as_dict=True)
        body = json.dumps({"keys": [key] if self.path in ("/good", "/short") else []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + (100 if self.path == "/half" else 0)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(("path", "good"), [("/good", True), ("/empty", False), ("/half", False), ("/short", False)])
def test_the_key_set_is_fetched_and_checked(path: str, good: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Provider)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        found = doctor.key_set(Settings(jwt_jwks_url=f"http://127.0.0.1:{server.server_port}{path}"))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert found.good is good
    assert "JWT_JWKS_URL" in found.text


def test_a_key_set_that_does_not_answer_must_be_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert not doctor.key_set(Settings(jwt_jwks_url="http://127.0.0.1:9/jwks")).good
