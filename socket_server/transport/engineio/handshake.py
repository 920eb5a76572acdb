"""What is kept of a handshake request: who asks and what it brought to prove it. The request itself is let go."""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAX_USER_AGENT_CHARS = 200


@dataclass(frozen=True, slots=True)
class Handshake:
    """address: the client's, as far as trusted proxies tell; cookie, authorization: those headers, "" where absent."""

    address: str
    user_agent: str
    cookie: str = field(repr=False)
    authorization: str = field(repr=False)
    attributable: bool = True  # False: an untrusted proxy stands before the client, and the address is the proxy's

    @classmethod
    def of(cls, environ: Mapping[str, Any], trusted: Sequence[Network] = ()) -> "Handshake":
        """Read a WSGI environment."""
        remote = environ.get("REMOTE_ADDR", "")
        return cls(
            address=client_address(environ.get("REMOTE_ADDR", ""), environ.get("HTTP_X_FORWARDED_FOR", ""), trusted),
            attributable="HTTP_X_FORWARDED_FOR" not in environ or _within(remote, trusted),
            user_agent=environ.get("HTTP_USER_AGENT", "")[:_MAX_USER_AGENT_CHARS],
            cookie=environ.get("HTTP_COOKIE", ""),
            authorization=environ.get("HTTP_AUTHORIZATION", ""),
        )


def client_address(remote: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """Return the address a request comes from: the last one in X-Forwarded-For that no trusted proxy has.

    Each proxy appends whom it was called by, so the list is believed from its end, for as long as the believer is
    trusted; what stands before is the client's own invention.
    """
    if not trusted:
        return remote
    address = remote
    for hop in reversed([hop.strip() for hop in forwarded_for.split(",") if hop.strip()]):
        if not _within(address, trusted):
            break
        if _parse(hop) is None:
            break
        address = hop
    return address


def _within(address: str, networks: Sequence[Network]) -> bool:
    parsed = _parse(address)
    return parsed is not None and any(parsed in network for network in networks)


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed
