"""Calls of the REST API, as a back end makes them."""

import argparse
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import requests

from socket_server.cli.errors import CommandError, reason
from socket_server.cli.secrets import api_key
from socket_server.cli.settings import client_settings

TIMEOUT_S = 30

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def call(
    options: argparse.Namespace,
    method: str,
    path: str,
    *,
    query: dict[str, Any] | None = None,
    json: Any = None,
    headers: dict[str, str] | None = None,
) -> requests.Response:
    """Return the answer of the server of --server, or of the settings. Raises CommandError if no server answers."""
    settings = client_settings()
    key = api_key(options, settings)
    url = (options.server or settings.local_url).rstrip("/") + path
    headers = {**(headers or {}), **({"Authorization": f"Bearer {key}"} if key else {})}
    try:
        return request(method, url, query=query, json=json, headers=headers)
    except (requests.RequestException, ValueError) as error:
        raise CommandError(f"no server answers at {url} ({reason(error)}): start it, or name it with --server") from None


def request(
    method: str, url: str, *, query: dict[str, Any] | None = None, json: Any = None, headers: dict[str, str] | None = None
) -> requests.Response:
    """Send a request without credentials of ~/.netrc, and to this machine without a proxy. Raises RequestException."""
    with requests.Session() as session:
        session.auth = _as_it_is
        session.trust_env = urlsplit(url).hostname not in _LOOPBACK
        prepared = session.prepare_request(requests.Request(method, url, headers=headers, json=json))
        # As it was given: requests would take the user ids `.` and `..` in a path for directories.
        prepared.url = url if query is None else f"{url}?{urlencode(query)}"
        settings = session.merge_environment_settings(prepared.url, {}, None, None, None)
        return session.send(prepared, timeout=TIMEOUT_S, allow_redirects=False, **settings)


def user_path(user_id: str, what: str) -> str:
    """Return the path of something of a user."""
    encoded = quote(user_id, safe="")
    if encoded in (".", ".."):
        encoded = encoded.replace(".", "%2E")
    return f"/users/{encoded}/{what}"


def _as_it_is(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    return prepared
