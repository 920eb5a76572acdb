"""JWK Sets (RFC 7517): which of the published keys may verify a token. Pure functions."""

from collections.abc import Iterable
from typing import Any

import jwt

from socket_server.config import ASYMMETRIC_ALGORITHMS, EC_ALGORITHMS, EDDSA_ALGORITHMS, RSA_ALGORITHMS

_ALGORITHMS_OF_TYPE = {"RSA": RSA_ALGORITHMS, "EC": EC_ALGORITHMS, "OKP": EDDSA_ALGORITHMS}


def public_keys(document: Any) -> tuple[jwt.PyJWK, ...]:
    """Return the usable signature keys of a JWK Set. Unusable keys are left out, as RFC 7517, section 5 asks.

    Only public keys of known types are kept: a symmetric key (`oct`) in a published set would let anybody sign tokens.
    Raises ValueError if the document is not a JWK Set.
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


def matching(keys: Iterable[jwt.PyJWK], kid: Any, algorithm: str) -> list[Any]:
    """Return the keys that may have signed a token with this `kid` (None: any) and algorithm."""
    return [key.key for key in keys if (kid is None or key.key_id == kid) and algorithm in _algorithms_of(key)]


def _algorithms_of(key: jwt.PyJWK) -> tuple[str, ...]:
    named = key._jwk_data.get("alg")
    of_type = _ALGORITHMS_OF_TYPE.get(key.key_type or "", ())
    if isinstance(named, str):
        return (named,) if named in of_type else ()
    return (key.algorithm_name,) if key.key_type == "EC" else of_type
