"""The environment over the file of settings."""

import os
from pathlib import Path

import pytest

from socket_server import config
from socket_server.errors import ConfigError
from tests.unit.config.reading import SECRET, VARIABLES
from tests.unit.keypairs import public_pem


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and an environment without settings."""
    for name in [*VARIABLES, "ENV_FILE"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_file_of_the_working_directory_is_read(place: Path) -> None:
    (place / ".env").write_text(f"JWT_SECRET={SECRET}\n# a comment\nAPI_KEYS=from-file\nPORT=4000\nHOST=\n")
    found = config.load()
    assert (found.jwt_secrets, found.api_keys, found.port, found.host) == ((SECRET,), ("from-file",), 4000, "0.0.0.0")


def test_the_environment_wins_over_the_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / ".env").write_text(f"JWT_SECRET={SECRET}\nAPI_KEYS=from-file\nPORT=4000\n")
    monkeypatch.setenv("PORT", "5000")
    monkeypatch.setenv("API_KEYS", "from-environment")
    found = config.load()
    assert (found.port, found.api_keys, found.jwt_secrets) == (5000, ("from-environment",), (SECRET,))


def test_the_file_does_not_change_the_environment(place: Path) -> None:
    (place / ".env").write_text(f"JWT_SECRET={SECRET}\nAPI_KEYS=k\n")
    config.load()
    assert "JWT_SECRET" not in os.environ


def test_env_file_names_another_file_or_none(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / ".env").write_text(f"JWT_SECRET={SECRET}\nAPI_KEYS=k\nPORT=4000\n")
    (place / "other").write_text(f"JWT_SECRET={SECRET}\nAPI_KEYS=k\nPORT=6000\n")
    monkeypatch.setenv("ENV_FILE", "other")
    assert config.load().port == 6000
    monkeypatch.setenv("ENV_FILE", "")
    with pytest.raises(ConfigError):
        config.load()


def test_nothing_in_the_file_is_expanded(place: Path) -> None:
    (place / ".env").write_text("JWT_SECRET='a$HOME-${HOME}-secret-of-enough-bytes-012345678901234567890'\nAPI_KEYS=k\n")
    assert config.load().jwt_secrets[0].startswith("a$HOME-${HOME}-secret")


def test_a_pem_in_the_file_may_have_its_lines_escaped(place: Path) -> None:
    pem = public_pem("P-256").replace("\n", "\\n")
    (place / ".env").write_text(f"JWT_PUBLIC_KEY={pem}\nAPI_KEYS=k\n")
    assert config.load().jwt_algorithms == ("ES256",)
    (place / ".env").write_text(f'JWT_PUBLIC_KEY="{pem}"\nAPI_KEYS=k\n')
    assert config.load().jwt_algorithms == ("ES256",)


def test_file_and_environment_win_over_the_mode_that_a_command_suggests(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.load(app_env="development").development
    (place / ".env").write_text(f"JWT_SECRET={SECRET}\nAPI_KEYS=k\nAPP_ENV=production\n")
    assert not config.load(app_env="development").development
    monkeypatch.setenv("APP_ENV", "development")
    assert config.load().development


def test_an_empty_mode_in_the_environment_leaves_the_suggested_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Docker's env_file passes the empty lines of .env.example on as empty variables.
    monkeypatch.setenv("APP_ENV", "")
    assert config.load(app_env="development").development
