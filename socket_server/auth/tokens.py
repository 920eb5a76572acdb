"""Verify JSON Web Tokens, and mint them for development (RFC 7519, RFC 8725).

Finding the token in a handshake is in credentials.py.
"""

import base64
import binascii
import json
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import HMACAlgorithm
from jwt.warnings import InsecureKeyLengthWarning

from socket_server.auth.remote_keys import KeySet, UnknownKeyError
from socket_server.auth.user_ids import is_too_long, user_id_text
from socket_server.config import HMAC_ALGORITHMS, Settings, algorithms_of_pem
from socket_server.errors import AuthenticationError, ConfigError

# Longer than the tokens of common identity providers, and short enough that parsing one costs microseconds.
MAX_TOKEN_CHARS = 16_384

_HASHES = dict(zip(HMAC_ALGORITHMS, (HMACAlgorithm.SHA256, HMACAlgorithm.SHA384, HMACAlgorithm.SHA512), strict=True))

# 2^53 - 1, the largest integer that JavaScript reads exactly. Some issuers write "never" as a far greater number.
_LATEST = 9_007_199_254_740_991

_PARTS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", re.ASCII)

# config/weaknesses.py reports a short secret once, at start. PyJWT would warn at every token.
warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)


@dataclass(frozen=True, slots=True)
class Identity:
    """The user of a verified token. expires_at: Unix seconds; None if the token has no `exp`."""

    user_id: str
    expires_at: int | None


def invalid_format() -> AuthenticationError:
    return AuthenticationError("Invalid JWT format", "invalid_format")


def invalid_token() -> AuthenticationError:
    return AuthenticationError("Invalid or expired JWT", "invalid_token")


def expired_token() -> AuthenticationError:
    return AuthenticationError("Invalid or expired JWT", "expired_token")


class _PreparedHmac(HMACAlgorithm):
    """HMAC with secrets that were checked once. PyJWT checks the kind and length of the secret for every token, which takes
    twice as long as the rest of the verification."""

    def prepare_key(self, key: str | bytes) -> bytes:
        assert isinstance(key, bytes)
        return key

    def check_key_length(self, key: bytes) -> None:
        pass


def _prepared(secrets: Sequence[str]) -> list[bytes]:
    """Return the HMAC keys. Raises ConfigError if a secret is a PEM or SSH key, whose public part may be known."""
    try:
        return [HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret) for secret in secrets]
    except jwt.InvalidKeyError as error:
        raise ConfigError([f"JWT_SECRET is no HMAC secret ({error}): set a random text"]) from None


class TokenVerifier:
    """Verifies tokens by the configured secrets, public key or JWK Set. Thread-safe."""

    def __init__(self, settings: Settings, jwks: KeySet | None = None, clock: Callable[[], float] = time.time) -> None:
        """jwks: the keys behind JWT_JWKS_URL, None if that is not set. Raises ConfigError."""
        self._settings = settings
        self._signatures = jwt.PyJWS()
        for name, of_hash in _HASHES.items():
            self._signatures.unregister_algorithm(name)
            self._signatures.register_algorithm(name, _PreparedHmac(of_hash))
        self._secrets = _prepared(settings.jwt_secrets)
        self._public_key = load_pem_public_key(pem.encode()) if (pem := settings.jwt_public_key) else None
        self._jwks = jwks
        self._clock = clock

    def verify(self, token: str) -> Identity:
        """Return the identity of a valid token. May wait up to FETCH_TIMEOUT_S for a JWK Set.

        Raises AuthenticationError (`invalid_format`, `invalid_token`, `expired_token`), or KeysUnavailable if the keys to
        judge the token by cannot be fetched now.
        """
        header = decode_header(token)
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._settings.jwt_algorithms:
            raise invalid_token()
        expired = False
        for key in self._keys(algorithm, header):
            try:
                return self._identity(self._claims(token, key, algorithm))
            except jwt.ExpiredSignatureError:
                expired = True  # the signature is valid under this key, so no other key changes the result
                break
            except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
                continue
        raise expired_token() if expired else invalid_token()

    def _keys(self, algorithm: str, header: dict[str, Any]) -> Iterator[Any]:
        """Yield the keys that may have signed this token: its algorithm selects the kind, its `kid` the key of a set.

        The JWK Set comes last, so that a fetch that fails does not hide a key that is configured here.
        """
        if algorithm in HMAC_ALGORITHMS:
            yield from self._secrets
            return
        if self._public_key is not None and algorithm in algorithms_of_pem(self._settings.jwt_public_key):
            yield self._public_key
        if self._jwks is not None:
            try:
                found = self._jwks.find(header.get("kid"), algorithm)
            except UnknownKeyError:
                return
            yield from found

    def _claims(self, token: str, key: Any, algorithm: str) -> dict[str, Any]:
        """Return the claims of a token if its signature, audience and issuer are right; else raise."""
        claims = json.loads(self._signatures.decode_complete(token, key, [algorithm])["payload"])
        if not isinstance(claims, dict):
            raise jwt.InvalidTokenError("the claims are no object")
        audiences, issuers = self._settings.jwt_audience, self._settings.jwt_issuer
        meant_for = claims.get("aud")
        if audiences and not any(each in audiences for each in (meant_for if isinstance(meant_for, list) else [meant_for])):
            raise jwt.InvalidAudienceError
        if issuers and claims.get("iss") not in issuers:
            raise jwt.InvalidIssuerError
        return claims

    def _identity(self, claims: dict[str, Any]) -> Identity:
        now, leeway = self._clock(), self._settings.jwt_leeway_s
        expires_at = numeric_date(claims["exp"]) if "exp" in claims else None
        not_before = numeric_date(claims["nbf"]) if "nbf" in claims else None
        if expires_at is not None and now >= expires_at + leeway:
            raise jwt.ExpiredSignatureError
        if not_before is not None and now < not_before - leeway:
            raise jwt.ImmatureSignatureError
        claim = next((claims[name] for name in self._settings.jwt_user_claims if claims.get(name) is not None), None)
        user_id = user_id_text(claim)
        if not user_id or is_too_long(user_id):
            raise jwt.InvalidTokenError("no usable user id in the token")
        return Identity(user_id, expires_at)


def numeric_date(value: Any) -> int:
    """Return a NumericDate (RFC 7519 section 2) in whole seconds.

    Raises ValueError or OverflowError if it is none: such a token is invalid, not without expiry.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("not a NumericDate")
    return min(int(value), _LATEST)


def decode_header(token: str) -> dict[str, Any]:
    """Return the JOSE header of a token: three base64url parts, the first a JSON object.

    Raises AuthenticationError invalid_format.
    """
    if len(token) > MAX_TOKEN_CHARS or not _PARTS.fullmatch(token):
        raise invalid_format()
    if any(len(part) % 4 == 1 for part in token.split(".")):
        raise invalid_format()  # base64: 4 characters are 3 bytes; a remainder of 1 character is impossible
    encoded = token.partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        raise invalid_format() from None
    if not isinstance(header, dict):
        raise invalid_format()
    return header


def mint(user_id: str, secret: str, settings: Settings, lifetime_s: int, now: float) -> str:
    """Return a token that this server accepts under its own settings, signed with an HMAC secret.

    lifetime_s: seconds from `now` (Unix seconds) to its expiry.
    """
    algorithm = next((name for name in settings.jwt_algorithms if name in HMAC_ALGORITHMS), HMAC_ALGORITHMS[0])
    claims: dict[str, Any] = {settings.jwt_user_claims[0]: user_id, "iat": int(now), "exp": int(now) + lifetime_s}
    if settings.jwt_audience:
        claims["aud"] = settings.jwt_audience[0]
    if settings.jwt_issuer:
        claims["iss"] = settings.jwt_issuer[0]
    return jwt.encode(claims, secret, algorithm=algorithm)
