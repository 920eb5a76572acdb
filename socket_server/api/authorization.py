"""Which back ends may call: the API key, or in development this machine."""

from collections.abc import Mapping
from typing import Any

from socket_server.auth.api_keys import ApiKeys, is_loopback_call
from socket_server.config import Settings
from socket_server.errors import RequestError

_FORWARDING_HEADERS = ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP")


class Authorization:
    """Judges a request by its head, a WSGI environ."""

    def __init__(self, settings: Settings) -> None:
        self._api_keys = ApiKeys(settings.api_keys)
        self._open = settings.api_open

    def require(self, environ: Mapping[str, Any]) -> None:
        """Raise RequestError 401 where this caller may not."""
        if self._open:
            return
        if self._api_keys:
            if not self._api_keys.accept(environ.get("HTTP_AUTHORIZATION", "")):
                raise RequestError(401, "Unauthorized", "send Authorization: Bearer <one of API_KEYS>")
        elif not is_local(environ):
            raise RequestError(
                401, "Unauthorized", "development without API_KEYS takes calls from this machine only; set API_KEYS"
            )

    def allows(self, environ: Mapping[str, Any]) -> bool:
        """Say whether this caller may."""
        try:
            self.require(environ)
        except RequestError:
            return False
        return True


def is_local(environ: Mapping[str, Any]) -> bool:
    """Say whether a request comes from this very machine, through no proxy."""
    forwarded = any(name in environ for name in _FORWARDING_HEADERS)
    return is_loopback_call(environ.get("REMOTE_ADDR", ""), environ.get("HTTP_HOST", ""), forwarded)
