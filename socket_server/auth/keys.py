"""Keys of an identity provider: a JWK Set behind a URL (RFC 7517), cached and refreshed on an unknown `kid`."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import jwt
import requests

from socket_server import log
from socket_server.config import ASYMMETRIC_ALGORITHMS, EC_ALGORITHMS, EDDSA_ALGORITHMS, RSA_ALGORITHMS

_log = log.logger("Server")

FRESH_S = 3_600.0  # a set older than this is fetched again at the next token
COOLDOWN_S = 5.0  # strangers can name unknown `kid`s; the provider is asked at most this often
FETCH_TIMEOUT_S = 5.0
MAX_SET_BYTES = 1_048_576

_ALGORITHMS_OF_TYPE = {"RSA": RSA_ALGORITHMS, "EC": EC_ALGORITHMS, "OKP": EDDSA_ALGORITHMS}


class UnknownKeyError(Exception):
    """No key of the set fits this token."""


class KeySet(Protocol):
    """Public keys by `kid`."""

    def find(self, kid: Any, algorithm: str) -> list[Any]:
        """Return the keys that may have signed a token with this `kid` and algorithm. Raises UnknownKeyError."""
        ...


class RemoteKeySet:
    """The JWK Set behind a URL.

    One fetch at a time; while one is under way others wait for it. A provider that is down costs nobody a token whose
    key is already here. Only public keys of known kinds are kept: a symmetric (`oct`) key in a published set would let
    anyone sign.
    """

    def __init__(
        self,
        url: str,
        fetch: Callable[[str], Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._fetch = fetch or fetch_json
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: tuple[jwt.PyJWK, ...] = ()
        self._fetched_at = -FRESH_S
        self._tried_at = -COOLDOWN_S

    def find(self, kid: Any, algorithm: str) -> list[Any]:
        stale = self._clock() - self._fetched_at >= FRESH_S
        found = self._matching(kid, algorithm)
        if stale or not found:
            # Whoever has a key here does not wait for another's fetch.
            self._refresh(wait=not found)
            found = self._matching(kid, algorithm)
        if not found:
            raise UnknownKeyError
        return found

    def _matching(self, kid: Any, algorithm: str) -> list[Any]:
        return [key.key for key in self._keys if (kid is None or key.key_id == kid) and algorithm in _algorithms_of(key)]

    def _refresh(self, wait: bool) -> None:
        if not self._lock.acquire(blocking=wait):
            return
        try:
            if self._clock() - self._tried_at < COOLDOWN_S:
                return
            self._tried_at = self._clock()
            try:
                self._keys = public_keys(self._fetch(self._url))
                self._fetched_at = self._clock()
            except (requests.RequestException, ValueError) as error:
                # The error's text may hold the URL, and its query a key of the provider's.
                _log.error("the JWK Set could not be fetched; keeping %d keys: %s", len(self._keys), type(error).__name__)
        finally:
            self._lock.release()


def _algorithms_of(key: jwt.PyJWK) -> tuple[str, ...]:
    named = key._jwk_data.get("alg")
    of_type = _ALGORITHMS_OF_TYPE.get(key.key_type or "", ())
    if isinstance(named, str):
        return (named,) if named in of_type else ()
    return (key.algorithm_name,) if key.key_type == "EC" else of_type


def public_keys(document: Any) -> tuple[jwt.PyJWK, ...]:
    """Return the usable signature keys of a JWK Set; what cannot be used is left out, as RFC 7517 section 5 asks.

    Raises ValueError where the document is no JWK Set.
    """
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError('not a JWK Set: no "keys" array')
    keys = []
    for data in document["keys"]:
        if not isinstance(data, dict) or data.get("use", "sig") != "sig":
            continue
        if not isinstance(data.get("kty"), str) or data["kty"] not in _ALGORITHMS_OF_TYPE:
            continue
        if data.get("alg") is not None and data["alg"] not in ASYMMETRIC_ALGORITHMS:
            continue
        try:
            keys.append(jwt.PyJWK({name: value for name, value in data.items() if name != "d"}))
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
    return tuple(keys)


def fetch_json(url: str) -> Any:
    """Return the JSON behind a URL, at most MAX_SET_BYTES of it. Raises RequestException or ValueError."""
    with requests.get(url, timeout=FETCH_TIMEOUT_S, stream=True, headers={"Accept": "application/json"}) as response:
        response.raise_for_status()
        body, ends = b"", time.monotonic() + FETCH_TIMEOUT_S
        for part in response.iter_content(65_536):
            body += part
            if time.monotonic() > ends:
                raise requests.Timeout(f"not complete within {FETCH_TIMEOUT_S:g} s")
            if len(body) > MAX_SET_BYTES:
                raise ValueError(f"larger than {MAX_SET_BYTES} bytes")
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
