"""Which callers may use the REST API: those with an API key, or in development those on this machine."""

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from socket_server import log
from socket_server.auth.api_keys import ApiKeys, is_loopback_call
from socket_server.config import Settings
from socket_server.errors import RequestError
from socket_server.limited_log import LimitedLog
from socket_server.transport.engineio.client_address import limit_key
from socket_server.transport.engineio.origins import Origins
from socket_server.transport.engineio.rate import RateByName

_FORWARDING_HEADERS = ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP")

_log = log.logger("Server")


class Authorization:
    """Decides by the head of a request, as a WSGI environ."""

    def __init__(
        self,
        settings: Settings,
        address_of: Callable[[Mapping[str, Any]], str] | None = None,
        origins: Origins | None = None,
    ) -> None:
        """address_of: the client's address of a request, "" if it is unknown. None: the peer's address.

        origins: with API_KEYS=none, web pages of other origins are refused. None: those of the settings.
        """
        self._origins = origins or Origins(settings.client_origins, development=settings.development)
        self._api_keys = ApiKeys(settings.api_keys)
        self._open = settings.api_open
        self._address_of = address_of or _peer
        per_minute = settings.max_auth_failures_per_minute
        self._wrong_keys = RateByName(per_minute / 60, per_minute)
        self._log_refusal = LimitedLog(_log.warning, "more refused REST calls")

    def require(self, environ: Mapping[str, Any]) -> None:
        """Raise RequestError 401 if this caller may not use the API, 429 if its address sends wrong keys too often.

        403: without keys (API_KEYS=none) every caller may but a web page of an origin that is not allowed. It could reach a
        server on a private network through its visitor's browser, also by DNS rebinding.
        """
        if self._open:
            if not self._origins.allow_without_key(environ):
                raise RequestError(403, "Forbidden", "with API_KEYS=none, web pages of origins in CLIENT_URL only may call")
            return
        if self._api_keys:
            if not self._api_keys.accept(environ.get("HTTP_AUTHORIZATION", "")):
                raise self._refusal(environ)
        elif not is_local(environ):
            raise RequestError(
                401, "Unauthorized", "development without API_KEYS takes calls from this machine only; set API_KEYS"
            )

    def allows(self, environ: Mapping[str, Any]) -> bool:
        """Return whether this caller may use the API. A wrong key is neither counted nor logged."""
        if self._open:
            return self._origins.allow_without_key(environ)
        if self._api_keys:
            return self._api_keys.accept(environ.get("HTTP_AUTHORIZATION", ""))
        return is_local(environ)

    def owner(self, environ: Mapping[str, Any]) -> str:
        """Return the owner of an accepted call's idempotency keys: a digest of the API key, or "" without API keys."""
        if not self._api_keys:
            return ""
        presented = environ.get("HTTP_AUTHORIZATION", "").partition(" ")[2].strip()
        return hashlib.sha256(presented.encode()).hexdigest()[:16]

    def _refusal(self, environ: Mapping[str, Any]) -> RequestError:
        """Count and log a call without a right key.

        A right key is accepted whatever else its address sends: otherwise an old key left in one back end, or a client
        behind the same proxy, could lock out every back end of that address.
        """
        address = self._address_of(environ)
        given = "wrong API key" if environ.get("HTTP_AUTHORIZATION") else "no API key"
        within_rate = not address or self._wrong_keys.take(limit_key(address), time.monotonic())
        status = 401 if within_rate else 429
        self._log_refusal(
            "refused method=%s path=%s status=%d reason=%r address=%s",
            environ.get("REQUEST_METHOD", ""),
            environ.get("PATH_INFO", ""),
            status,
            given,
            address,
        )
        if within_rate:
            return RequestError(401, "Unauthorized", "send Authorization: Bearer <one of API_KEYS>")
        message = "too many calls without a right API key from this address; send Authorization: Bearer <one of API_KEYS>"
        return RequestError(429, "Too Many Requests", message, retry_after_s=1)


def is_local(environ: Mapping[str, Any]) -> bool:
    """Return whether a request comes from this machine and through no proxy."""
    forwarded = any(name in environ for name in _FORWARDING_HEADERS)
    return is_loopback_call(_peer(environ), environ.get("HTTP_HOST", ""), forwarded)


def _peer(environ: Mapping[str, Any]) -> str:
    address: str = environ.get("REMOTE_ADDR", "")
    return address
