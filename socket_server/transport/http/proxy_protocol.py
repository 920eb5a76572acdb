"""The PROXY protocol, versions 1 and 2: a load balancer tells the client's address in a header before the first byte.

Source: haproxy.org/download/2.9/doc/proxy-protocol.txt. Pure: bytes in, values out.
"""

import ipaddress
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

MODES = ("v1", "v2", "auto")

MAX_HEADER_BYTES = 4_096  # version 2 allows 65,551; real ones carry an address and a few extensions

_V1 = b"PROXY "
_V1_MAX_BYTES = 107
_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEAD = struct.Struct("!12sBBH")
_FAMILIES = {0x11: (socket.AF_INET, struct.Struct("!4s4sHH")), 0x21: (socket.AF_INET6, struct.Struct("!16s16sHH"))}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Header:
    """size: bytes of the header. client: its address and port, None if the peer speaks for itself (a health check of the
    load balancer), or ("", 0) if the load balancer does not know it."""

    size: int
    client: Address | None


@dataclass(frozen=True, slots=True)
class ProxyProtocol:
    """Which version is read, and from which peers. A peer on a Unix socket is always allowed, as in gunicorn."""

    mode: str  # one of MODES
    allowed: Sequence[Network] | None  # None: every peer

    @classmethod
    def of_gunicorn(cls, mode: str, allowed: Sequence[str]) -> "ProxyProtocol":
        """Return what --proxy-protocol and --proxy-allow-from ask for; `*` among the latter allows every peer."""
        networks = None if "*" in allowed else [ipaddress.ip_network(each, strict=False) for each in allowed]
        return cls(mode, networks)

    def applies_to(self, peer: object) -> bool:
        """Return whether a header is read from this peer, an address as accept() returns it."""
        if not isinstance(peer, tuple) or self.allowed is None:
            return True
        address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.allowed)

    def parse(self, data: bytes) -> Header | None:
        """Parse the first bytes of a connection. Header.size is 0 if they are no header; None if more bytes are needed.

        Raises ValueError for a malformed header.
        """
        if self.mode != "v2" and data[: len(_V1)] == _V1[: len(data)]:
            return _parse_v1(data)
        if self.mode != "v1" and data[: len(_V2)] == _V2[: len(data)]:
            return _parse_v2(data)
        return Header(0, None)


def _parse_v1(data: bytes) -> Header | None:
    line, end, _ = data[:_V1_MAX_BYTES].partition(b"\r\n")
    if not end:
        if len(data) >= _V1_MAX_BYTES:
            raise ValueError("the line of the PROXY header does not end")
        return None
    size = len(line) + len(end)
    fields = line.decode("ascii").split(" ")
    if fields[1:2] == ["UNKNOWN"]:
        return Header(size, ("", 0))
    if len(fields) != 6 or fields[1] not in ("TCP4", "TCP6"):
        raise ValueError("a malformed PROXY header")
    family = socket.AF_INET if fields[1] == "TCP4" else socket.AF_INET6
    try:
        source, _ = (_text(family, socket.inet_pton(family, text)) for text in fields[2:4])
    except OSError:
        raise ValueError("a PROXY header with a bad address") from None
    port, _ = (_port(text) for text in fields[4:6])
    return Header(size, (source, port))


def _parse_v2(data: bytes) -> Header | None:
    if len(data) < _V2_HEAD.size:
        return None
    _, version_and_command, family_and_protocol, length = _V2_HEAD.unpack_from(data)
    if version_and_command not in (0x20, 0x21):
        raise ValueError("a PROXY header of an unknown version or command")
    size = _V2_HEAD.size + length
    if size > MAX_HEADER_BYTES:
        raise ValueError("a PROXY header that is too long")
    if len(data) < size:
        return None
    if version_and_command == 0x20:  # LOCAL
        return Header(size, None)
    if family_and_protocol not in _FAMILIES:  # UNSPEC, UDP, Unix sockets
        return Header(size, ("", 0))
    family, layout = _FAMILIES[family_and_protocol]
    if length < layout.size:
        raise ValueError("a PROXY header without its addresses")
    source, _, port, _ = layout.unpack_from(data, _V2_HEAD.size)
    return Header(size, (_text(family, source), port))


def _text(family: int, address: bytes) -> str:
    """Return an address in its one normal form."""
    return socket.inet_ntop(family, address)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= 65_535):
        raise ValueError("a PROXY header with a bad port")
    return int(text)
