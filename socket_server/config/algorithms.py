"""Which JWS algorithms each kind of key can verify (RFC 7518, RFC 8037)."""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

HMAC_ALGORITHMS = ("HS256", "HS384", "HS512")
RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
EC_ALGORITHMS = ("ES256", "ES256K", "ES384", "ES512")
EDDSA_ALGORITHMS = ("EdDSA",)
ASYMMETRIC_ALGORITHMS = RSA_ALGORITHMS + EC_ALGORITHMS + EDDSA_ALGORITHMS

_BY_CURVE = {"secp256r1": "ES256", "secp256k1": "ES256K", "secp384r1": "ES384", "secp521r1": "ES512"}

MIN_RSA_BITS = 2_048  # RFC 7518, section 3.3


def algorithms_of_pem(pem: str) -> tuple[str, ...]:
    """Return the algorithms that this public key can verify; empty for a kind of key that JWS does not use.

    Raises ValueError if it is not a PEM public key.
    """
    try:
        key = load_pem_public_key(pem.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    match key:
        case rsa.RSAPublicKey():
            return RSA_ALGORITHMS
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            return EDDSA_ALGORITHMS
        case ec.EllipticCurvePublicKey():
            name = _BY_CURVE.get(key.curve.name)
            return (name,) if name else ()
        case _:
            return ()


def is_short_rsa(pem: str) -> bool:
    """Return whether this PEM is an RSA public key of fewer than MIN_RSA_BITS."""
    key = load_pem_public_key(pem.encode())
    return isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS
