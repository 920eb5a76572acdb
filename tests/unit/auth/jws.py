"""JSON Web Signatures by hand (RFC 7515), so that a test can sign what no library would."""

import base64
import hashlib
import hmac
import json
from typing import Any

SECRET = "a-secret-of-more-than-sixty-four-bytes-so-that-every-hash-has-enough-0123456789"
OTHER_SECRET = "another-secret-of-more-than-sixty-four-bytes-for-those-who-guess-0123456789-abc"
_HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unbase64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def sign(claims: Any, *, secret: str = SECRET, alg: str = "HS256", header: Any = None) -> str:
    """Return a token with a good HMAC signature. claims, header: JSON, or bytes to be signed as they are."""
    head = header if header is not None else {"alg": alg, "typ": "JWT"}
    parts = [base64url(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (head, claims)]
    signature = hmac.new(secret.encode(), ".".join(parts).encode(), _HASHES[alg]).digest()
    return ".".join([*parts, base64url(signature)])
