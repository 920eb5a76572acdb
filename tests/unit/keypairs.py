"""Key pairs of every kind that tokens are signed with, made once for a run."""

import functools
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519

_CURVES = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1, "secp256k1": ec.SECP256K1}


def private_key(kind: str, number: int = 0) -> Any:
    """Return a private key: "RSA", a curve's name, "Ed25519", "Ed448", or the useless "DSA", "X25519" and "P-224".

    number: asks for another key of the same kind.
    """
    return _private_key(kind, number)


@functools.cache
def _private_key(kind: str, number: int) -> Any:
    if kind == "RSA":
        return rsa.generate_private_key(65537, 2048)
    if kind in _CURVES:
        return ec.generate_private_key(_CURVES[kind]())
    makers = {
        "Ed25519": ed25519.Ed25519PrivateKey.generate,
        "Ed448": ed448.Ed448PrivateKey.generate,
        "X25519": x25519.X25519PrivateKey.generate,
        "DSA": lambda: dsa.generate_private_key(1024),
        "P-224": lambda: ec.generate_private_key(ec.SECP224R1()),
    }
    return makers[kind]()


def public_pem(kind: str, number: int = 0) -> str:
    """Return the public half as PEM."""
    public = private_key(kind, number).public_key()
    pem: bytes = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def private_pem(kind: str, number: int = 0) -> str:
    """Return the private half as PEM (PKCS #8)."""
    pem: bytes = private_key(kind, number).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem.decode()


@functools.cache
def short_rsa_key() -> rsa.RSAPublicKey:
    """Return an RSA public key of 1,024 bits, which is too weak for tokens."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=1_024).public_key()
