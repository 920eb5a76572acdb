"""Settings: read once from the environment and the `.env` file, checked completely, and passed down as one frozen value."""

from socket_server.config.algorithms import (
    ASYMMETRIC_ALGORITHMS,
    EC_ALGORITHMS,
    EDDSA_ALGORITHMS,
    HMAC_ALGORITHMS,
    RSA_ALGORITHMS,
    algorithms_of_pem,
)
from socket_server.config.environment import from_environ, load
from socket_server.config.settings import Network, Settings

__all__ = [
    "ASYMMETRIC_ALGORITHMS",
    "EC_ALGORITHMS",
    "EDDSA_ALGORITHMS",
    "HMAC_ALGORITHMS",
    "RSA_ALGORITHMS",
    "Network",
    "Settings",
    "algorithms_of_pem",
    "from_environ",
    "load",
]
