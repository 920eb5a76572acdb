"""The address of a client behind any number of proxies, and the name under which it is counted. Pure functions.

Each proxy appends the address of its peer to `X-Forwarded-For`. The list is therefore read from its end, and only as far as
trusted proxies wrote it; the members before that are the client's own claim. A client whose address cannot be read has
none. It is never given the address of the proxy, which would make the limits of one client those of all.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_MEMBERS = 32  # of X-Forwarded-For that are read; a client behind more trusted proxies has no address
MAX_MEMBER_LENGTH = 64  # the longest real one: IPv6 in brackets, a zone id and a port

# What proxies write: an address; IPv4 with a port (Azure Application Gateway); IPv6 in brackets, with or without a port
# (RFC 7239 section 6); IPv6 with a zone id (RFC 4007); any of these in quotation marks. A port may be obfuscated ("_a1").
_MEMBER = re.compile(
    r'"?(?:\[(?P<bracketed>[0-9a-f:.]+)(?:%[^\]"\s]*)?\]|(?P<v4>[0-9.]+)|(?P<v6>[0-9a-f:.]+)(?:%[^"\s]*)?)'
    r'(?::(?:[0-9]{1,5}|_[\w.-]+))?"?',
    re.ASCII | re.IGNORECASE,
)

_IPV6_NETWORK_BITS = 64


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The peers whose `X-Forwarded-For` is believed (TRUSTED_PROXIES).

    unix_socket: the peer of a Unix socket is one of them. Without it, clients over a Unix socket have no address.
    """

    networks: tuple[Network, ...] = ()
    unix_socket: bool = False

    def include(self, address: Address) -> bool:
        return any(address in network for network in self.networks)


def client_address(environ: Mapping[str, Any], trusted: TrustedProxies) -> str:
    """Return the client's address of a request in its canonical form; "" if it cannot be read.

    environ: a WSGI environment; without REMOTE_ADDR, the peer is at the other end of a Unix socket.
    """
    remote = environ.get("REMOTE_ADDR", "")
    peer = parse(remote)
    if remote and peer is None:
        return ""
    if not (trusted.unix_socket if peer is None else trusted.include(peer)):
        return "" if peer is None else str(peer)
    found: Address | None = None
    for member in reversed(environ.get("HTTP_X_FORWARDED_FOR", "").rsplit(",", MAX_MEMBERS)):
        text = member.strip()
        if not text:
            continue  # empty list members are allowed and mean nothing (RFC 9110 section 5.6.1)
        found = parse(text)
        if found is None or not trusted.include(found):
            break
    return "" if found is None else str(found)


def parse(text: str) -> Address | None:
    """Return the address in a member of X-Forwarded-For or in REMOTE_ADDR; None for any other text.

    "unknown" and obfuscated names ("_hidden") are no addresses. An IPv4-mapped IPv6 address is returned as IPv4.
    """
    match = _MEMBER.fullmatch(text) if len(text) <= MAX_MEMBER_LENGTH else None
    if match is None:
        return None
    try:
        address = ipaddress.ip_address(match["bracketed"] or match["v4"] or match["v6"])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def limit_key(address: str) -> str:
    """Return the name under which an address is counted: of IPv6 the /64 network, which one client has whole.

    address: as client_address() returns it; "" (no address) stays "" and is not counted.
    """
    if ":" not in address:
        return address
    bits = 128 - _IPV6_NETWORK_BITS
    network = ipaddress.IPv6Address(int(ipaddress.IPv6Address(address)) >> bits << bits)
    return f"{network}/{_IPV6_NETWORK_BITS}"
