"""Which web sites may talk to this server (RFC 6454). This is what protects authentication by cookie: a browser sends the
cookies along wherever the page comes from, and the same-origin policy does not cover WebSockets."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit


class Origins:
    """The allowed origins. same_origin: pages that this very server hands out count too."""

    def __init__(self, allowed: Sequence[str], same_origin: bool = False) -> None:
        self._allowed = frozenset(allowed)
        self._same_origin = same_origin

    def allow(self, environ: Mapping[str, Any]) -> bool:
        """Say whether the request may be served; one without an Origin comes from no web page, and may."""
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or origin in self._allowed or "*" in self._allowed:
            return True
        if not self._same_origin:
            return False
        try:
            return bool(host := environ.get("HTTP_HOST")) and urlsplit(origin).netloc == host
        except ValueError:
            return False

    def headers(self, environ: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the CORS headers of a response: none unless an allowed origin asks (Fetch standard, CORS protocol)."""
        vary = ("Vary", "Origin")
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or not self.allow(environ):
            return [vary]
        headers = [vary, ("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true")]
        if environ.get("REQUEST_METHOD") == "OPTIONS":
            headers += [
                ("Access-Control-Allow-Methods", "GET, POST, OPTIONS"),
                ("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key"),
                ("Access-Control-Max-Age", "600"),
            ]
        return headers
