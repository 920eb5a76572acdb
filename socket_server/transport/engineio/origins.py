"""Which web pages may talk to this server, by the origin that their browser states (RFC 6454).

This is what protects authentication by cookie: a browser sends the cookies of a site with every request to it, whatever
page makes the request, and the same-origin policy does not cover WebSockets.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from socket_server.transport.engineio import preflight

MAX_ORIGIN_LENGTH = 300  # a scheme, a host name of 253 characters and a port

# Schemes in which clients state the server's own origin: browsers state http(s), mobile libraries also the WebSocket URL.
_OWN_SCHEMES = frozenset({"https", "wss"})
_OWN_SCHEMES_IN_DEVELOPMENT = _OWN_SCHEMES | {"http", "ws"}

_DEFAULT_PORTS = {"http": ":80", "ws": ":80", "https": ":443", "wss": ":443"}
_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
_LABELS = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")

# Values of Sec-Fetch-Site (Fetch Metadata Request Headers, W3C) of requests that no foreign page makes.
_OWN_SITES = frozenset({"same-origin", "none"})


class Origins:
    """The allowed origins: those configured, and the server's own."""

    def __init__(self, configured: Sequence[str] = (), *, development: bool = False) -> None:
        """configured: the origins of CLIENT_URL as browsers write them (Settings.client_origins): lower case and punycode.
        `https://*.example.com` is any name below example.com, at any depth, and not example.com itself; `*` every origin.

        development: the server's own origin may be http too. In production it must be https, since an http page can be
        forged on its way to the browser.
        """
        self._any = "*" in configured
        self._exact = frozenset(origin for origin in configured if "://*." not in origin)
        self._wildcards = [origin.split("://*") for origin in configured if "://*." in origin]
        self._own_schemes = _OWN_SCHEMES_IN_DEVELOPMENT if development else _OWN_SCHEMES

    def allow(self, environ: Mapping[str, Any]) -> bool:
        """Return whether a request may be served.

        A request without an Origin is made by no web page, or by a page of this server, unless its Sec-Fetch-Site says
        otherwise: browsers leave the Origin out of `no-cors` requests, which may carry cookies.
        """
        origin = environ.get("HTTP_ORIGIN")
        if self._any:
            return True
        if origin is None:
            return environ.get("HTTP_SEC_FETCH_SITE", "none").strip().lower() in _OWN_SITES
        return len(origin) <= MAX_ORIGIN_LENGTH and (
            self._configured(origin.lower()) or self._is_own(origin.lower(), environ.get("HTTP_HOST", "").lower())
        )

    def allow_without_key(self, environ: Mapping[str, Any]) -> bool:
        """Return whether a request may be served that needs no credentials (API_KEYS=none).

        Stricter than allow(): under DNS rebinding a foreign page has this server's host as its own, so an http origin must
        be configured, or its host must be an address or localhost, which cannot be rebound.
        """
        if not self.allow(environ):
            return False
        origin = environ.get("HTTP_ORIGIN", "").lower()
        scheme, _, host = origin.partition("://")
        return scheme not in ("http", "ws") or self._any or self._configured(origin) or _is_address_or_localhost(host)

    def headers(self, environ: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the CORS headers of a response: none but Vary unless an allowed origin asks (Fetch standard)."""
        vary = ("Vary", "Origin")
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or not self.allow(environ):
            return [vary]
        headers = [vary, ("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true")]
        if environ.get("REQUEST_METHOD") == "OPTIONS":
            headers += preflight.headers(environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", ""))
        return headers

    def _configured(self, origin: str) -> bool:
        return origin in self._exact or any(_is_below(origin, scheme, suffix) for scheme, suffix in self._wildcards)

    def _is_own(self, origin: str, host: str) -> bool:
        """Return whether this is the origin of the server itself, by the Host that the request names."""
        scheme, _, rest = origin.partition("://")
        if not host or not rest:
            return False
        port = _DEFAULT_PORTS.get(scheme, "")
        if rest.removesuffix(port) != host.removesuffix(port):
            return False
        # Nothing can come between a browser and a server on one machine.
        return scheme in self._own_schemes or (scheme in ("http", "ws") and bool(_LOOPBACK.fullmatch(host)))


def _is_below(origin: str, scheme: str, suffix: str) -> bool:
    """Return whether the origin has this scheme, and a host that is one label or more and then the suffix ".domain"."""
    start = f"{scheme}://"
    if not (origin.startswith(start) and origin.endswith(suffix)):
        return False
    return bool(_LABELS.fullmatch(origin[len(start) : -len(suffix)]))


def _is_address_or_localhost(host: str) -> bool:
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
