"""Calls of the REST API."""

import argparse
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import requests

from socket_server.cli.errors import CommandError, reason
from socket_server.cli.secrets import api_key
from socket_server.cli.settings import client_settings

TIMEOUT_S = 30


def call(
    options: argparse.Namespace,
    method: str,
    path: str,
    *,
    query: dict[str, Any] | None = None,
    json: Any = None,
    headers: dict[str, str] | None = None,
) -> requests.Response:
    """Return the answer of the server that --server or the settings name. Raises CommandError if no server answers."""
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
    """Return the answer to a request. Raises RequestException.

    Credentials of ~/.netrc are not sent. A proxy of the environment (HTTPS_PROXY) is used for https only: over http it
    could read the API key.
    """
    with requests.Session() as session:
        session.auth = _unchanged  # without one, requests reads ~/.netrc
        session.trust_env = may_use_proxy(url)
        prepared = session.prepare_request(requests.Request(method, url, headers=headers, json=json))
        # requests resolves the user ids `.` and `..` in a path as directories. This URL is sent as it is.
        prepared.url = url if query is None else f"{url}?{urlencode(query)}"
        settings = session.merge_environment_settings(prepared.url, {}, None, None, None)
        return session.send(prepared, timeout=TIMEOUT_S, allow_redirects=False, **settings)


def may_use_proxy(url: str) -> bool:
    """Return whether a proxy could not read what is sent to this URL."""
    return urlsplit(url).scheme in ("https", "wss")


def user_path(user_id: str, resource: str) -> str:
    """Return the path `/users/<id>/<resource>`. Raises CommandError if the id is not valid Unicode."""
    try:
        encoded = quote(user_id, safe="")
    except UnicodeEncodeError:
        raise CommandError("the user id is not valid UTF-8: write it as your back end does") from None
    if encoded in (".", ".."):
        encoded = encoded.replace(".", "%2E")
    return f"/users/{encoded}/{resource}"


def _unchanged(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    return prepared
