"""JWT_SECRET and API_KEYS: what signs tokens, and what lets back ends in."""

from socket_server.config.reader import Reader
from socket_server.config.weaknesses import NEW_SECRET


def jwt_secrets(read: Reader, name: str) -> tuple[str, ...]:
    """Return the HMAC secrets, the newest first."""
    secrets = read.words(name)
    if any("-----BEGIN" in secret for secret in secrets):
        read.problem(f"{name} holds a PEM, which is no HMAC secret: put a public key into JWT_PUBLIC_KEY")
    return secrets


def api_keys(read: Reader, name: str) -> tuple[str, ...]:
    """Return the API keys; ("none",) if every caller may use the API."""
    keys = read.words(name)
    if "none" in keys and keys != ("none",):
        read.problem(f"{name} has 'none' beside other keys: give keys, or 'none' alone to run open")
    if any(not (key.isascii() and key.isprintable()) for key in keys):
        read.problem(
            f"{name} has a key with characters that an HTTP header cannot carry: use ASCII letters and digits; "
            f"make one with {NEW_SECRET}"
        )
    return keys


def require(read: Reader, *, has_jwt_key: bool, has_api_keys: bool) -> None:
    """Add the problems of a production server without a key."""
    if not has_jwt_key and not read.has_problem("JWT_PUBLIC_KEY", "JWT_JWKS_URL"):
        read.problem(
            "JWT_SECRET is missing, and so are JWT_PUBLIC_KEY and JWT_JWKS_URL: set the one that your tokens are "
            f"signed with; a new secret: {NEW_SECRET}"
        )
    if not has_api_keys:
        read.problem(
            "API_KEYS is missing: set the key(s) that your back end sends as 'Authorization: Bearer …' (make one: "
            f"{NEW_SECRET}), or API_KEYS=none to run open behind a private network"
        )
