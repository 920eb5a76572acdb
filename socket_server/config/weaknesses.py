"""Warnings at every start. They do not stop it.

A weakness is a mistake: `socket-server doctor` fails because of it. A remark names the consequence of a deliberate setting.
"""

import ipaddress
import os
import stat
from collections.abc import Iterator
from urllib.parse import unquote

from socket_server.config.algorithms import MIN_RSA_BITS, is_short_rsa
from socket_server.config.settings import Settings

NEW_SECRET = 'python3 -c "import secrets; print(secrets.token_urlsafe(48))"'  # noqa: S105 - the command that makes one

# RFC 7518, section 3.2: an HMAC key is at least as long as the hash, which is 32 bytes for HS256.
MIN_HMAC_SECRET_BYTES = 32
MIN_API_KEY_CHARS = 16


def remarks(settings: Settings) -> Iterator[str]:
    """Yield the consequences of deliberate settings."""
    if settings.api_open:
        yield "API_KEYS=none: every caller that reaches this port can broadcast; keep it behind a private network"
    if settings.inbox_url.startswith("memory:"):
        yield "INBOX_URL=memory://: notifications of users who are away are lost when this process ends"
    if settings.development and settings.host not in ("127.0.0.1", "::1", "localhost"):
        yield "APP_ENV=development: made for one developer's machine, not for the internet"
    for origin in ("null", "file://"):
        if origin in settings.client_origins and not settings.development:
            yield f"CLIENT_URL allows {origin!r}: every local file and sandboxed frame can use your users' cookies"


def weaknesses(settings: Settings) -> Iterator[str]:
    """Yield the settings that make the server easier to attack, each with the remedy. No secret is part of a text."""
    yield from _weak_secrets(settings)
    if settings.jwt_public_key and is_short_rsa(settings.jwt_public_key):
        yield f"JWT_PUBLIC_KEY is an RSA key of fewer than {MIN_RSA_BITS} bits, which can be broken: make a new key pair"
    if any(len(key) < MIN_API_KEY_CHARS for key in settings.api_keys):
        yield (
            f"API_KEYS has a key of fewer than {MIN_API_KEY_CHARS} characters, which can be guessed; make one with "
            f"{NEW_SECRET}"
        )
    if _trusts_everything(settings):
        yield "TRUSTED_PROXIES trusts every address, so clients can claim any: list your proxies only"
    yield from map(quotation_marks, settings.quoted)
    path = inbox_path(settings)
    if path and is_open_to_others(path):
        yield f"the inbox file {path} can be read by other users of this machine: chmod 600 {path}"


def quotation_marks(name: str) -> str:
    """Return the text for a variable whose value has quotation marks around it."""
    return f"{name} has quotation marks around its value, and they are part of it: remove them"


def _weak_secrets(settings: Settings) -> Iterator[str]:
    if any(len(secret.encode()) < MIN_HMAC_SECRET_BYTES for secret in settings.jwt_secrets):
        yield (
            f"JWT_SECRET has a secret of fewer than {MIN_HMAC_SECRET_BYTES} bytes, which can be guessed; make one with "
            f"{NEW_SECRET}"
        )
    for name, values in (("JWT_SECRET", settings.jwt_secrets), ("API_KEYS", settings.api_keys)):
        if any(_is_file(value) for value in values):
            yield f"{name} is the path of a file, and the path itself is the secret: set the content of the file"


def _is_file(text: str) -> bool:
    """Return whether a text is the path of a file, also with `file:` or `@` before it, as other programs write it."""
    path = os.path.expanduser(text.removeprefix("@").removeprefix("file://").removeprefix("file:"))
    try:
        return os.path.isfile(path)
    except ValueError:  # a NUL byte
        return False


def _trusts_everything(settings: Settings) -> bool:
    """Return whether the networks together contain at least half of all IPv4 or of all IPv6 addresses."""
    v4 = [network for network in settings.trusted_proxies if isinstance(network, ipaddress.IPv4Network)]
    v6 = [network for network in settings.trusted_proxies if isinstance(network, ipaddress.IPv6Network)]
    joined = [*map(str, ipaddress.collapse_addresses(v4)), *map(str, ipaddress.collapse_addresses(v6))]
    return any(network.endswith(("/0", "/1")) for network in joined)


def inbox_path(settings: Settings) -> str:
    """Return the path of the SQLite file; "" for another store."""
    scheme, _, rest = settings.inbox_url.partition(":///")
    return unquote(rest.partition("?")[0]) if scheme == "sqlite" else ""


def is_open_to_others(path: str) -> bool:
    """Return whether a file exists and other users may read or write it."""
    try:
        return bool(stat.S_IMODE(os.stat(path).st_mode) & 0o077)
    except (OSError, ValueError):
        return False
