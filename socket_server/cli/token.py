"""`socket-server token`: mint a token for a user."""

import argparse
import time

import requests

from socket_server.auth import tokens
from socket_server.cli import http
from socket_server.cli.errors import CommandError, reason
from socket_server.cli.settings import client_settings
from socket_server.config import Settings


def run(options: argparse.Namespace) -> int:
    print(mint(client_settings(), options.user, options.ttl))
    return 0


def mint(settings: Settings, user_id: str, ttl_s: int, server: str | None = None) -> str:
    """Return a token signed with JWT_SECRET; without one, a token minted by the development server on this machine.

    Raises CommandError if there is neither.
    """
    if settings.jwt_secrets:
        return tokens.mint(user_id, settings.jwt_secrets[0], settings, ttl_s, time.time())
    if settings.jwt_public_key or settings.jwt_jwks_url:
        raise CommandError("only a public key is configured: tokens are signed by the holder of the private key")
    url = f"{(server or settings.local_url).rstrip('/')}/demo/token"
    try:
        answer = http.request("POST", url, json={"userId": user_id})
        answer.raise_for_status()
        return str(answer.json()["token"])
    except (requests.RequestException, KeyError, TypeError) as error:
        raise CommandError(
            "JWT_SECRET is not set, and no development server mints tokens "
            f"at {url} ({reason(error)}): set JWT_SECRET, or start one with `make run`"
        ) from None
