"""Which web sites may talk to this server (RFC 6454). This is what protects authentication by cookie: a browser sends the
cookies along wherever the page comes from, and the same-origin policy does not cover WebSockets."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from socket_server.transport.engineio import preflight

_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")


class Origins:
    """The allowed origins, and with same_origin the page that this very server hands out."""

    def __init__(self, allowed: Sequence[str], same_origin: Sequence[str] = ()) -> None:
        """same_origin: the schemes of that page; an http one can be forged on its way, so production has https only."""
        self._allowed = frozenset(allowed)
        self._same_origin = tuple(same_origin)

    def allow(self, environ: Mapping[str, Any]) -> bool:
        """Say whether the request may be served; one without an Origin comes from no web page, and may."""
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or origin in self._allowed or "*" in self._allowed:
            return True
        host = environ.get("HTTP_HOST")
        if not host or not self._same_origin:
            return False
        if origin == f"http://{host}" and _LOOPBACK.fullmatch(host):
            return True  # nobody stands between this machine and itself
        return any(origin == f"{scheme}://{host}" for scheme in self._same_origin)

    def headers(self, environ: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the CORS headers of a response: none unless an allowed origin asks (Fetch standard, CORS protocol)."""
        vary = ("Vary", "Origin")
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or not self.allow(environ):
            return [vary]
        headers = [vary, ("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true")]
        if environ.get("REQUEST_METHOD") == "OPTIONS":
            headers += preflight.headers(environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", ""))
        return headers
