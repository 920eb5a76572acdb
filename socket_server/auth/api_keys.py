"""API keys of back ends, and what counts as a call from this machine."""

import hmac
import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class ApiKeys:
    """The configured API keys. Comparison takes constant time."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = tuple(key.encode() for key in keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def accept(self, authorization: str) -> bool:
        """Return whether the Authorization header carries one of the keys as `Bearer <key>` (RFC 6750, section 2.1)."""
        scheme, _, presented = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return False
        candidate = presented.strip().encode()
        # All keys are compared, so that the response time does not reveal which key matched.
        matches = [hmac.compare_digest(candidate, key) for key in self._keys]
        return any(matches)


def is_loopback_call(remote_address: str, host_header: str, forwarded: bool) -> bool:
    """Return whether a request comes from this machine and names this machine in its Host header.

    forwarded: the request carries a forwarding header, so its address is that of a proxy.
    The Host header is checked because of DNS rebinding: a web page can point its own host name at 127.0.0.1.
    """
    try:
        address = ipaddress.ip_address(remote_address)
        name = urlsplit(f"//{host_header}").hostname
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # an IPv4 client of a socket that listens on ::
    return (mapped or address).is_loopback and not forwarded and name in _LOOPBACK_NAMES
