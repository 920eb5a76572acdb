"""API keys: may this caller use the REST API."""

import hmac
import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class ApiKeys:
    """The keys that back ends present; compared in constant time."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = tuple(key.encode() for key in keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def accept(self, authorization: str) -> bool:
        """Say whether this Authorization header carries one of the keys as `Bearer <key>` (RFC 6750 section 2.1)."""
        scheme, _, presented = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return False
        candidate = presented.strip().encode()
        # Every key is compared, so that the time taken does not tell which one matched.
        matches = [hmac.compare_digest(candidate, key) for key in self._keys]
        return any(matches)


def is_loopback_call(remote_address: str, host_header: str, forwarded: bool) -> bool:
    """Say whether a request comes from this very machine, by a name of this machine.

    forwarded: it carries a forwarding header, so the address is a proxy's and tells nothing. The name matters because a
    web page may point a host name of its own at 127.0.0.1 (DNS rebinding) and then speak as if it were local.
    """
    try:
        address = ipaddress.ip_address(remote_address)
    except ValueError:
        return False
    try:
        name = urlsplit(f"//{host_header}").hostname
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # an IPv4 client of a socket that listens on ::
    local = (mapped or address).is_loopback
    return local and not forwarded and name in _LOOPBACK_NAMES
