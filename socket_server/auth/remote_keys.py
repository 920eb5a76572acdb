"""The keys of an identity provider: a JWK Set behind a URL, kept fresh in the background.

Fetched at start, every REFRESH_S, and for a token whose `kid` is unknown. If the provider does not answer, the keys fetched
before stay valid. A token whose key is not known by then is neither valid nor invalid: KeysUnavailable.
"""

import json
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

import gevent
import jwt
import requests
from gevent.monkey import is_module_patched

from socket_server import log
from socket_server.auth import jwk_set
from socket_server.errors import KeysUnavailable

_log = log.logger("Server")

# Time between two fetches while the provider answers. Providers commonly publish a new key at least an hour before use.
REFRESH_S = 1_800.0

# Delay before the next attempt after a failure: doubled each time, up to the maximum.
FIRST_RETRY_S = 1.0
MAX_RETRY_S = 30.0

# Minimum time between two fetches for unknown `kid`s, since an unauthenticated client can name any `kid`.
COOLDOWN_S = 5.0

FETCH_TIMEOUT_S = 5.0  # of one fetch as a whole, redirects included
MAX_SET_BYTES = 1_048_576
MAX_REDIRECTS = 3


class UnknownKeyError(Exception):
    """The JWK Set is known, and none of its keys fits the token."""


class KeySet(Protocol):
    """Public keys by `kid`."""

    def find(self, kid: Any, algorithm: str) -> list[Any]:
        """Return the keys that may have signed a token with this `kid` and algorithm.

        Raises UnknownKeyError if there are none, KeysUnavailable if that cannot be determined now.
        """
        ...


class RemoteKeySet:
    """The JWK Set behind a URL. Thread-safe; at most one fetch runs at a time (single flight)."""

    def __init__(
        self,
        url: str,
        fetch: Callable[[str], Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._fetch = fetch or fetch_json
        self._clock = clock
        self._fetching = threading.Lock()
        self._stopped = threading.Event()
        self._keys: tuple[jwt.PyJWK, ...] = ()
        self._has_set = False  # a JWK Set was fetched at least once
        self._reachable = False  # the last fetch succeeded
        self._tried_at = float("-inf")

    def start(self) -> None:
        """Fetch the set now and keep it fresh, in a thread (a greenlet on gevent)."""
        threading.Thread(target=self._run, name="jwks", daemon=True).start()

    def stop(self) -> None:
        """End the background refresh."""
        self._stopped.set()

    def check(self) -> None:
        """Raise KeysUnavailable if no JWK Set has been fetched yet."""
        if not self._has_set:
            raise KeysUnavailable(
                "the keys of the identity provider could not be fetched, so no token can be verified by them: "
                "check JWT_JWKS_URL and that this machine reaches it; new attempts follow by themselves"
            )

    def find(self, kid: Any, algorithm: str) -> list[Any]:
        found = jwk_set.matching(self._keys, kid, algorithm)
        if found:
            return found
        if kid is not None and any(key.key_id == kid for key in self._keys):
            raise UnknownKeyError  # the set has this key, and it is for other algorithms
        fresh = self._refresh_for_unknown()
        found = jwk_set.matching(self._keys, kid, algorithm)
        if found:
            return found
        if fresh:
            raise UnknownKeyError
        raise KeysUnavailable("the keys of the identity provider could not be fetched")

    def refresh(self) -> bool:
        """Fetch the set; return whether that succeeded."""
        with self._fetching:
            return self._refresh()

    def _refresh_for_unknown(self) -> bool:
        """Fetch the set for a `kid` that it lacks; return whether it is now up to date.

        During the cooldown nothing is fetched. The provider may have published the key since, so the set does not count as
        up to date.
        """
        came = self._clock()
        with self._fetching:
            if self._tried_at >= came:
                return self._reachable  # another caller has just fetched it
            if self._clock() - self._tried_at < COOLDOWN_S:
                return False
            return self._refresh()

    def _refresh(self) -> bool:
        try:
            self._keys = jwk_set.public_keys(self._fetch(self._url))
            self._has_set = self._reachable = True
        except (requests.RequestException, ValueError) as error:
            # The error's text can contain the URL, whose query can contain a secret.
            _log.error("the JWK Set could not be fetched; keys=%d error=%s", len(self._keys), type(error).__name__)
            self._reachable = False
        self._tried_at = self._clock()
        return self._reachable

    def _run(self) -> None:
        retry_s = FIRST_RETRY_S
        while not self._stopped.is_set():
            if self.refresh():
                delay_s, retry_s = REFRESH_S, FIRST_RETRY_S
            else:
                delay_s, retry_s = retry_s, min(2 * retry_s, MAX_RETRY_S)
            self._stopped.wait(delay_s)


def fetch_json(url: str) -> Any:
    """Return the JSON document behind a URL, at most MAX_SET_BYTES long, within FETCH_TIMEOUT_S in all.

    Redirects are followed on the same scheme, host and port only, so that an https URL never becomes http.
    Raises RequestException or ValueError.
    """
    try:
        with _deadline(FETCH_TIMEOUT_S):
            body = _get(url, time.monotonic() + FETCH_TIMEOUT_S)
    except gevent.Timeout:
        raise _too_slow() from None
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _get(url: str, ends: float) -> bytes:
    with requests.Session() as session:
        session.auth = _no_credentials
        for _ in range(MAX_REDIRECTS + 1):
            with session.get(
                url,
                timeout=FETCH_TIMEOUT_S,
                stream=True,
                allow_redirects=False,
                headers={"Accept": "application/json"},
            ) as response:
                if not response.is_redirect:
                    response.raise_for_status()
                    return _body(response, ends)
                target = urljoin(url, response.headers["Location"])
            if _site(target) != _site(url):
                raise ValueError("redirected to another scheme or host")
            url = target
    raise requests.TooManyRedirects(f"more than {MAX_REDIRECTS}")


def _body(response: requests.Response, ends: float) -> bytes:
    body = b""
    for part in response.iter_content(65_536):
        body += part
        if time.monotonic() > ends:
            raise _too_slow()
        if len(body) > MAX_SET_BYTES:
            raise ValueError(f"larger than {MAX_SET_BYTES} bytes")
    return body


def _site(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Send the request as it is: without this, requests would add credentials from ~/.netrc."""
    return request


def _too_slow() -> requests.Timeout:
    return requests.Timeout(f"not complete within {FETCH_TIMEOUT_S:g} s")


def _deadline(seconds: float) -> AbstractContextManager[Any]:
    """Raise gevent.Timeout after this time, whatever the code inside waits for: DNS, connecting, a slow response head.

    Under threads (`flask run`) only each read and the body as a whole are bounded: a thread cannot be interrupted.
    """
    return gevent.Timeout(seconds) if is_module_patched("socket") else nullcontext()
