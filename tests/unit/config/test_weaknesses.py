"""Warnings at every start."""

from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from socket_server.config import Settings, from_environ
from socket_server.config.weaknesses import remarks, weaknesses
from tests.unit.keypairs import public_pem, short_rsa_key

SECRET = "a-secret-of-enough-bytes-for-every-hash-0123456789"
KEY = "an-api-key-of-enough-characters"


def found(**variables: str) -> list[str]:
    return list(weaknesses(from_environ({"JWT_SECRET": SECRET, "API_KEYS": KEY, **variables})))


def only(name: str, **variables: str) -> str:
    """Return the only weakness there is, which names this variable."""
    (text,) = found(**variables)
    assert text.startswith(name), text
    return text


def test_good_settings_have_none() -> None:
    assert found() == []
    assert found(JWT_PUBLIC_KEY=public_pem("RSA"), TRUSTED_PROXIES="10.0.0.0/8") == []


def test_each_of_several_secrets_is_checked_and_none_is_shown() -> None:
    assert "tiny" not in only("JWT_SECRET", JWT_SECRET="tiny")
    assert "tiny" not in only("JWT_SECRET", JWT_SECRET=f"{SECRET},tiny")
    assert "tiny" not in only("API_KEYS", API_KEYS=f"{KEY},tiny")


def test_a_secret_that_is_the_path_of_a_file_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ("secret-" * 6)
    assert found(JWT_SECRET=str(path)) == []
    path.write_text(SECRET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("JWT_SECRET", "API_KEYS"):
        for value in (str(path), path.name, f"./{path.name}", f"~/{path.name}", f"@{path}", f"file://{path}"):
            assert path.name not in only(name, **{name: value})


def test_a_short_rsa_key_is_weak() -> None:
    pem = short_rsa_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert [text.split(" ")[0] for text in weaknesses(Settings(jwt_public_key=pem))] == ["JWT_PUBLIC_KEY"]


@pytest.mark.parametrize(
    "value",
    [
        *("0.0.0.0/0", "::/0", "10.0.0.0/8, 0.0.0.0/0", "0.0.0.0/1,128.0.0.0/1", "::ffff:0:0/96"),
        *("0.0.0.0/2,64.0.0.0/2,128.0.0.0/1", "0.0.0.0/2,64.0.0.0/2"),
    ],
)
def test_every_address_as_a_proxy_is_weak(value: str) -> None:
    only("TRUSTED_PROXIES", TRUSTED_PROXIES=value)
    assert found(TRUSTED_PROXIES=str(ip_network("192.168.0.0/16"))) == []


@pytest.mark.parametrize("quote", ['"', "'"])
def test_quotation_marks_around_a_value_are_a_mistake(quote: str) -> None:
    assert found(JWT_SECRET=f"{quote}{SECRET}{quote}") == [
        "JWT_SECRET has quotation marks around its value, and they are part of it: remove them"
    ]
    assert found(JWT_SECRET=f"{quote}{SECRET}") == []


def test_an_inbox_file_that_others_can_read_is_weak(tmp_path: Path) -> None:
    path = tmp_path / "inbox.db"
    url = f"sqlite:///{path}"
    assert found(INBOX_URL=url) == []
    path.touch(0o600)
    assert found(INBOX_URL=url) == []
    path.chmod(0o640)
    (text,) = found(INBOX_URL=url)
    assert f"chmod 600 {path}" in text


def test_deliberate_choices_are_remarks_and_not_weaknesses() -> None:
    chosen = from_environ(
        {"JWT_SECRET": SECRET, "API_KEYS": "none", "INBOX_URL": "memory://", "CLIENT_URL": "null,file://"}
    )
    assert list(weaknesses(chosen)) == []
    assert [text.split(":")[0] for text in remarks(chosen)] == [
        "API_KEYS=none",
        "INBOX_URL=memory",
        "CLIENT_URL allows 'null'",
        "CLIENT_URL allows 'file",
    ]


def test_development_open_to_the_network_is_remarked() -> None:
    assert any("APP_ENV=development" in text for text in remarks(from_environ({"APP_ENV": "development"})))
    assert list(remarks(from_environ({"APP_ENV": "development", "HOST": "127.0.0.1"}))) == []
