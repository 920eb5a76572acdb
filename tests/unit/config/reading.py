"""Settings from variables, for the tests of the settings."""

from typing import Any

import pytest

from socket_server.config import Settings, from_environ
from socket_server.errors import ConfigError

SECRET = "a-secret-of-enough-bytes-for-every-hash-0123456789"
PRODUCTION = {"JWT_SECRET": SECRET, "API_KEYS": "key-1"}


class _Recorder(dict[str, str]):
    def __init__(self) -> None:
        super().__init__(PRODUCTION)
        self.asked: list[str] = []

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.append(key)
        return super().get(key, default)


def _variables() -> tuple[str, ...]:
    recorder = _Recorder()
    from_environ(recorder)
    return tuple(dict.fromkeys(recorder.asked))


VARIABLES = _variables()  # the name of every setting, and FLASK_RUN_FROM_CLI


def read(**variables: str) -> Settings:
    """Return the settings of a production server with these variables."""
    return from_environ({**PRODUCTION, **variables})


def problems(**variables: str) -> tuple[str, ...]:
    """Return the problems that these variables cause."""
    with pytest.raises(ConfigError) as caught:
        read(**variables)
    return caught.value.problems


def problem(**variables: str) -> str:
    """Return the only problem that these variables cause."""
    (only,) = problems(**variables)
    return only
