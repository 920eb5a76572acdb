"""`socket-server token`."""

import jwt
import pytest

from socket_server.cli import main
from tests.unit.cli.conftest import SECRET
from tests.unit.keypairs import public_pem


def test_a_token_is_signed_with_the_secret(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "123", "--ttl", "60"]) == 0
    claims = jwt.decode(capsys.readouterr().out.strip(), SECRET, algorithms=["HS256"])
    assert claims["id"] == "123"
    assert claims["exp"] - claims["iat"] == 60


def test_the_first_of_several_secrets_signs(env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    env.setenv("JWT_SECRET", f"{SECRET}-new,{SECRET}-old")
    env.setenv("JWT_USER_CLAIM", "uid")
    assert main(["token", "123"]) == 0
    claims = jwt.decode(capsys.readouterr().out.strip(), f"{SECRET}-new", algorithms=["HS256"])
    assert claims["uid"] == "123"


def test_without_a_secret_or_a_server_the_remedy_is_named(
    env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env.setenv("JWT_SECRET", "")
    assert main(["token", "123"]) == 1
    message = capsys.readouterr().err
    assert "JWT_SECRET is not set" in message
    assert "Traceback" not in message


def test_with_only_a_public_key_no_token_can_be_made(env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    env.setenv("JWT_SECRET", "")
    env.setenv("JWT_PUBLIC_KEY", public_pem("P-256"))
    assert main(["token", "123"]) == 1
    assert "public key" in capsys.readouterr().err
