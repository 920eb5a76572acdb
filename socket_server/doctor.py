"""The checks behind `socket-server doctor`: would the server start here, and serve MAX_CONNECTIONS connections?"""

import os
import resource
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from socket_server.config import Settings
from socket_server.config.algorithms import MIN_RSA_BITS
from socket_server.config.weaknesses import inbox_path, remarks, weaknesses
from socket_server.errors import ConfigError, InboxUnavailable
from socket_server.serve import SPARE_DESCRIPTORS


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. good: nothing must be fixed."""

    good: bool
    text: str


def examine(load: Callable[[], Settings]) -> Iterator[Finding]:
    """Yield the findings about the settings and, if they allow a start, about everything else."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(sys.version_info >= (3, 11), f"Python {version} (3.11 or later is needed)")
    try:
        settings = load()
    except ConfigError as error:
        yield from (Finding(False, problem) for problem in error.problems)
        return
    yield Finding(True, f"the settings are complete, mode {settings.app_env}")
    yield from (Finding(False, text) for text in weaknesses(settings))
    yield from (Finding(True, f"note: {text}") for text in remarks(settings))
    yield port(settings)
    yield descriptors(settings)
    yield inbox(settings)
    if settings.jwt_jwks_url:
        yield key_set(settings)


def port(settings: Settings) -> Finding:
    """Check that the server can listen on HOST and PORT."""
    where = f"{settings.host} port {settings.port}"
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            if already_runs(settings):
                return Finding(True, f"a socket-server already runs on {where}")
            remedy = "stop what listens there, or set another PORT"
            if isinstance(error, PermissionError):
                remedy = "ports below 1024 need a privilege: set PORT=3001 and put nginx in front"
            return Finding(False, f"cannot listen on {where}: {error.strerror or error}; {remedy}")
    return Finding(True, f"{where} is free")


def already_runs(settings: Settings) -> bool:
    """Return whether a socket-server answers at HOST and PORT."""
    import requests

    try:
        # The certificate is not verified: it names the server's public host, not this address.
        answer = requests.get(f"{settings.local_url}/health/live", timeout=2, verify=False)  # noqa: S501
    except requests.RequestException:
        return False
    return answer.ok and answer.text == '{"status":"alive"}'


def descriptors(settings: Settings) -> Finding:
    """Check that the limit of open files allows MAX_CONNECTIONS. In development a lower one is enough."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = settings.max_connections + SPARE_DESCRIPTORS
    if hard == resource.RLIM_INFINITY or hard >= wanted:
        return Finding(True, f"enough file descriptors for MAX_CONNECTIONS={settings.max_connections}")
    text = (
        f"the hard limit of open files is {hard}, MAX_CONNECTIONS={settings.max_connections} needs {wanted}: raise it "
        "(LimitNOFILE= in systemd, ulimits in Docker, /etc/security/limits.conf) or lower MAX_CONNECTIONS"
    )
    return Finding(True, f"note: {text}") if settings.development else Finding(False, text)


def inbox(settings: Settings) -> Finding:
    """Check that the store of INBOX_URL can be written.

    Root cannot check a SQLite file of a service's own user: the server refuses files of other users.
    """
    from socket_server.services import make_inbox

    path = inbox_path(settings)
    if path and os.geteuid() == 0 and (owner := _owner(path)):
        return Finding(
            True, f"note: the inbox {path} belongs to user id {owner}: /health of that user's server says whether it works"
        )
    store = make_inbox(settings)
    try:
        store.open()
        store.check()
    except InboxUnavailable as error:
        return Finding(False, f"{error} (INBOX_URL)")
    finally:
        store.close()
    return Finding(True, f"the inbox {store.place} can be written")


def _owner(path: str) -> int | None:
    """Return the user id that owns a file; None if there is no such file."""
    try:
        return os.stat(path).st_uid
    except OSError:
        return None


def key_set(settings: Settings) -> Finding:
    """Check that JWT_JWKS_URL answers with usable keys."""
    import requests

    from socket_server.auth.jwk_set import public_keys
    from socket_server.auth.remote_keys import fetch_json

    try:
        keys = public_keys(fetch_json(settings.jwt_jwks_url))
    except (requests.RequestException, ValueError) as error:
        return Finding(False, f"JWT_JWKS_URL does not answer with a JWK Set: {error}")
    if not keys:
        return Finding(False, "JWT_JWKS_URL has no usable signature key: publish RSA, EC or OKP keys with use=sig")
    if any(isinstance(each.key, RSAPublicKey) and each.key.key_size < MIN_RSA_BITS for each in keys):
        return Finding(
            False,
            f"JWT_JWKS_URL has an RSA key of fewer than {MIN_RSA_BITS} bits, which can be broken: replace the key pair",
        )
    return Finding(True, f"JWT_JWKS_URL has {len(keys)} usable keys")
