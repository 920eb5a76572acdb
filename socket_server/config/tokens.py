"""The settings by which tokens are verified: JWT_PUBLIC_KEY, JWT_JWKS_URL and JWT_ALGORITHMS."""

from pathlib import Path
from urllib.parse import urlsplit

from socket_server.config.algorithms import ASYMMETRIC_ALGORITHMS, HMAC_ALGORITHMS, algorithms_of_pem
from socket_server.config.reader import Reader


def public_key(read: Reader, name: str) -> str:
    """Return a PEM public key that is given as it is or by its path; "" if there is none."""
    value = read.raw(name)
    if not value:
        return ""
    # Platforms that hold settings on one line write the line ends of a PEM as a backslash and an n.
    pem = value.replace("\\n", "\n")
    if "-----BEGIN" not in pem:
        try:
            pem = Path(value).read_text(encoding="ascii")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            read.problem(f"{name} is neither a PEM nor the path of a readable one ({reason}): give a public key")
            return ""
    if "PRIVATE KEY-----" in pem:
        read.problem(f"{name} holds a private key: give the public one (openssl pkey -in private.pem -pubout)")
        return ""
    try:
        usable = algorithms_of_pem(pem)
    except ValueError:
        read.problem(f"{name} is not a PEM public key: it starts with -----BEGIN PUBLIC KEY-----")
        return ""
    if not usable:
        read.problem(f"{name} is of a kind that tokens are not signed with: use RSA, EC (P-256/384/521) or Ed25519")
        return ""
    return pem


def jwks_url(read: Reader, name: str, *, development: bool) -> str:
    """Return the URL of a JWK Set; "" if there is none."""
    value = read.raw(name)
    if not value:
        return ""
    try:
        url = urlsplit(value)
        hostname = url.hostname
    except ValueError:
        url, hostname = urlsplit(""), None
    loopback = hostname in ("localhost", "127.0.0.1", "::1")
    if not (url.scheme == "https" or (url.scheme == "http" and (loopback or development))) or not hostname:
        read.problem(f"{name} is {value!r}: give an https:// URL (http:// only on this machine)")
    return value


def algorithms(read: Reader, name: str, *, secret: bool, pem: str, jwks: bool) -> tuple[str, ...]:
    """Return the algorithms that a token may name: only those that its kind of key may verify (RFC 8725, section 3.1)."""
    possible: tuple[str, ...] = ()
    if secret or not (pem or jwks):
        possible += HMAC_ALGORITHMS
    if jwks:
        possible += ASYMMETRIC_ALGORITHMS
    elif pem:
        possible += algorithms_of_pem(pem)
    wanted = read.words(name)
    unusable = [word for word in wanted if word not in possible]
    if unusable and not read.has_problem("JWT_PUBLIC_KEY", "JWT_JWKS_URL"):
        read.problem(
            f"{name} names {', '.join(unusable)}, which the configured keys cannot verify: "
            f"use some of {', '.join(possible)}"
        )
    return wanted or possible
