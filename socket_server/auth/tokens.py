"""Tokens: is this JWT good, whose is it and until when (RFC 7519, RFC 8725).

Here: verifying and minting. Not here: finding the token in a handshake (credentials).
"""

import base64
import binascii
import json
import re
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import HMACAlgorithm
from jwt.warnings import InsecureKeyLengthWarning

from socket_server.auth.keys import KeySet, UnknownKeyError
from socket_server.config import HMAC_ALGORITHMS, Settings, algorithms_of_pem
from socket_server.errors import AuthenticationError, ConfigError

# Longer than any token an identity provider makes, short enough that parsing one costs nothing.
MAX_TOKEN_CHARS = 16_384

_HASHES = dict(zip(HMAC_ALGORITHMS, (HMACAlgorithm.SHA256, HMACAlgorithm.SHA384, HMACAlgorithm.SHA512), strict=True))

# 2^53 - 1, the largest integer that JavaScript clients can read: some issuers write "never" as a far greater number.
_LATEST = 9_007_199_254_740_991

_SURROGATE = re.compile("[\ud800-\udfff]")
_PARTS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", re.ASCII)

# Short secrets are warned about once, at start (Settings.warnings), not at every token.
warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a verified token speaks for. expires_at: Unix seconds, None for a token without `exp`."""

    user_id: str
    expires_at: int | None


def invalid_format() -> AuthenticationError:
    return AuthenticationError("Invalid JWT format", "invalid_format")


def invalid_token() -> AuthenticationError:
    return AuthenticationError("Invalid or expired JWT", "invalid_token")


def expired_token() -> AuthenticationError:
    return AuthenticationError("Invalid or expired JWT", "expired_token")


class _PreparedHmac(HMACAlgorithm):
    """HMAC with secrets that have been looked at. Upstream looks at them anew for every token: whether they are keys of
    another kind, or too short. That takes twice as long as all the rest."""

    def prepare_key(self, key: str | bytes) -> bytes:
        assert isinstance(key, bytes)
        return key

    def check_key_length(self, key: bytes) -> None:
        pass


def _prepared(secrets: Sequence[str]) -> list[bytes]:
    """Return HMAC keys. Raises ConfigError where a secret is a key of another kind: its public part might be known."""
    try:
        return [HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret) for secret in secrets]
    except jwt.InvalidKeyError as error:
        raise ConfigError([f"JWT_SECRET is no HMAC secret ({error}): set a random text"]) from None


class TokenVerifier:
    """Verifies tokens by the configured secrets, public key or JWK Set. Safe to call from any thread."""

    def __init__(self, settings: Settings, jwks: KeySet | None = None, clock: Callable[[], float] = time.time) -> None:
        """jwks: the keys of JWT_JWKS_URL, where that is set. Raises ConfigError."""
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
        """Return whom the token speaks for. May wait for the network where the keys are a JWK Set.

        Raises AuthenticationError: invalid_format, invalid_token or expired_token; `internal` is the caller's, for
        anything else that gets out of here.
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
                expired = True  # the signature is good under this key: no other key will do better
                break
            except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
                continue
        raise expired_token() if expired else invalid_token()

    def _keys(self, algorithm: str, header: dict[str, Any]) -> list[Any]:
        """Return the keys that may have signed this token: the algorithm picks their kind, the `kid` one of a set."""
        if algorithm in HMAC_ALGORITHMS:
            return list(self._secrets)
        keys: list[Any] = []
        if self._public_key is not None and algorithm in algorithms_of_pem(self._settings.jwt_public_key):
            keys.append(self._public_key)
        if self._jwks is not None:
            try:
                keys += self._jwks.find(header.get("kid"), algorithm)
            except UnknownKeyError:
                pass
        return keys

    def _claims(self, token: str, key: Any, algorithm: str) -> dict[str, Any]:
        """Return the claims of a token that this key has signed, for this audience and by this issuer."""
        claims = json.loads(self._signatures.decode_complete(token, key, [algorithm])["payload"])
        if not isinstance(claims, dict):
            raise jwt.InvalidTokenError("the claims are no object")
        audience, issuer = self._settings.jwt_audience, self._settings.jwt_issuer
        meant_for = claims.get("aud")
        if audience and audience != meant_for and not (isinstance(meant_for, list) and audience in meant_for):
            raise jwt.InvalidAudienceError
        if issuer and issuer != claims.get("iss"):
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
        if not user_id:
            raise jwt.InvalidTokenError("no user id in the token")
        return Identity(user_id, expires_at)


def numeric_date(value: Any) -> int:
    """Return a NumericDate (RFC 7519 section 2) in whole seconds.

    Raises ValueError or OverflowError where it is none: such a token is invalid, not eternal.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("not a NumericDate")
    return min(int(value), _LATEST)


def user_id_text(value: Any) -> str | None:
    """Return a user id as the string it is compared by; None where the value cannot be one."""
    if isinstance(value, str):
        # Half of a surrogate pair cannot be told to the client: it is nobody's id.
        return value if value.isascii() or not _SURROGATE.search(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return None


def decode_header(token: str) -> dict[str, Any]:
    """Return the JOSE header of a token: three base64url parts, the first a JSON object.

    Raises AuthenticationError invalid_format.
    """
    if len(token) > MAX_TOKEN_CHARS or not _PARTS.fullmatch(token):
        raise invalid_format()
    if any(len(part) % 4 == 1 for part in token.split(".")):
        raise invalid_format()  # four characters are three bytes; a fifth alone is none
    encoded = token.partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        raise invalid_format() from None
    if not isinstance(header, dict):
        raise invalid_format()
    return header


def mint(user_id: str, secret: str, settings: Settings, lifetime_s: int, now: float) -> str:
    """Return a token for a user, signed with an HMAC secret as this server's own settings ask for it."""
    algorithm = next((name for name in settings.jwt_algorithms if name in HMAC_ALGORITHMS), HMAC_ALGORITHMS[0])
    claims: dict[str, Any] = {settings.jwt_user_claims[0]: user_id, "iat": int(now), "exp": int(now) + lifetime_s}
    if settings.jwt_audience:
        claims["aud"] = settings.jwt_audience
    if settings.jwt_issuer:
        claims["iss"] = settings.jwt_issuer
    return jwt.encode(claims, secret, algorithm=algorithm)
