"""API keys and tokens of the commands. On the command line, every user of the machine can see them (`ps`)."""

import argparse
import os
import sys

from socket_server.cli.errors import CommandError
from socket_server.config import Settings

KEY_VARIABLE = "SOCKET_SERVER_API_KEY"
TOKEN_VARIABLE = "SOCKET_SERVER_TOKEN"  # noqa: S105 - the name of a variable


def api_key(options: argparse.Namespace, settings: Settings) -> str:
    """Return the API key: --key, --key-file, SOCKET_SERVER_API_KEY, the first of API_KEYS, or "". Raises CommandError."""
    given = options.key or _in_file(options.key_file, "--key-file") or os.environ.get(KEY_VARIABLE, "").strip()
    return sendable(given or next(iter(settings.api_keys), ""), "the API key")


def token(options: argparse.Namespace) -> str:
    """Return the token: --token, --token-file, SOCKET_SERVER_TOKEN, or "" if none is given. Raises CommandError."""
    given = options.token or _in_file(options.token_file, "--token-file") or os.environ.get(TOKEN_VARIABLE, "").strip()
    return sendable(given, "the token")


def _in_file(path: str | None, option: str) -> str:
    if not path:
        return ""
    try:
        if path == "-":
            return sys.stdin.readline().strip()
        with open(path, encoding="utf-8") as file:
            content = file.read().strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise CommandError(f"{option} {path} cannot be read ({why}): name a readable file") from None
    if not content:
        raise CommandError(f"{option} {path} is empty: write the secret into it")
    return content


def sendable(secret: str, what: str) -> str:
    """Return a text that an HTTP header can carry. Raises CommandError. what: names it in the error."""
    if not (secret.isascii() and secret.isprintable()):
        raise CommandError(f"{what} has characters that an HTTP header cannot carry: only ASCII letters, digits and signs")
    return secret
