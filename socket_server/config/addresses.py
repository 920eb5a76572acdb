"""HOST, BASE_PATH, CLIENT_URL and TRUSTED_PROXIES: where the server listens, which web pages may connect, which proxies."""

import ipaddress
import re
import socket

import idna

from socket_server.config.reader import Reader
from socket_server.config.settings import Network

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.IGNORECASE)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOCAL_ORIGINS = ("null", "file://")  # what browsers send for local files and sandboxed frames; Electron, Cordova


def host(read: Reader, name: str, default: str) -> str:
    """Return the address or host name to listen on."""
    value = read.text(name, default)
    try:
        ipaddress.ip_address(value)
    except ValueError:
        pass
    else:
        return value
    if value.startswith("[") and value.endswith("]"):
        read.problem(f"{name} is {value!r}: give the address without brackets, like {value[1:-1]}")
    elif not re.fullmatch(r"[A-Za-z0-9._-]{1,253}", value):
        read.problem(f"{name} is {value!r}: give an address of this machine, like 127.0.0.1 or ::, without scheme and port")
    else:
        try:
            socket.getaddrinfo(value, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError):
            read.problem(f"{name} is {value!r}, which names no address: give one of this machine, like 127.0.0.1 or ::")
    return value


def base_path(read: Reader, name: str) -> str:
    """Return the path below which everything is served: "" or like "/push", without a slash at its end."""
    value = read.raw(name).rstrip("/")
    if value and (not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", value) or {".", ".."} & set(value.split("/"))):
        read.problem(f"{name} is {value!r}: use a path like /push, of letters, digits, . _ ~ and - between its slashes")
        return ""
    return value


def origins(read: Reader, name: str, default: tuple[str, ...], *, development: bool) -> tuple[str, ...]:
    """Return the allowed origins as browsers write them (RFC 6454, section 6.2).

    One may start with `*.` in place of one or more labels of its host: `https://*.example.com`.
    """
    found = []
    for word in read.words(name) or default:
        if word == "*" and not development:
            read.problem(
                f"{name} is '*', which would let any web site use your users' cookies: "
                "list your sites, like https://app.example.com"
            )
        elif word == "*" or word.lower() in _LOCAL_ORIGINS:
            found.append(word.lower())
        else:
            try:
                found.append(_origin(word, development))
            except ValueError as error:
                read.problem(f"{name} has {word!r}: {error}")
    return tuple(found)


def _origin(word: str, development: bool) -> str:
    scheme, separator, rest = word.partition("://")
    scheme = scheme.lower()
    authority = rest.removesuffix("/")
    if not separator or not _SCHEME.fullmatch(scheme) or not authority or re.search(r"[/?#@\s\\]", authority):
        raise ValueError("an origin is a scheme and a host, like https://app.example.com")
    host_, port = _split_port(authority)
    wildcard = host_.startswith("*.")
    if wildcard:
        host_ = host_[2:]
        if scheme != "https" and not development:
            raise ValueError("an origin with *. needs https in production")
    if "*" in host_:
        raise ValueError("a star can only stand for the first labels of a host, like https://*.example.com")
    host_ = _normal_host(host_, wildcard) if scheme in ("http", "https") else host_.lower()
    suffix = "" if port is None or _DEFAULT_PORTS.get(scheme) == port else f":{port}"
    return f"{scheme}://{'*.' if wildcard else ''}{host_}{suffix}"


def _split_port(authority: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]*))?", authority)
    if match is None or not match[1]:
        raise ValueError("its host is malformed; an IPv6 address stands in brackets, like http://[::1]:5173")
    if not match[2]:
        return match[1], None
    if not match[2].isascii() or not 1 <= int(match[2]) <= 65_535:
        raise ValueError("its port is not between 1 and 65535")
    return match[1], int(match[2])


def _normal_host(host_: str, wildcard: bool) -> str:
    """Return a host as browsers send it: lower case, and punycode for an internationalized name."""
    if host_.startswith("["):
        try:
            address = ipaddress.IPv6Address(host_[1:-1])
        except ValueError:
            raise ValueError("its IPv6 address is malformed") from None
        if wildcard:
            raise ValueError("an address has no subdomains")
        return f"[{address.compressed}]"
    if re.fullmatch(r"[0-9.]+", host_):
        try:
            ipaddress.IPv4Address(host_)
        except ValueError:
            raise ValueError("its IPv4 address is malformed") from None
        if wildcard:
            raise ValueError("an address has no subdomains")
        return host_
    try:
        name = host_.lower() if host_.isascii() else idna.encode(host_, uts46=True).decode()
    except idna.IDNAError:
        raise ValueError("its host is no domain name") from None
    labels = name.removesuffix(".").split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("its host is no domain name")
    if wildcard and len(labels) < 2 and name != "localhost":
        raise ValueError("*. must stand before a domain of your own, like *.example.com")
    return name


_IPV4_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def networks(read: Reader, name: str) -> tuple[Network, ...]:
    """Return the addresses and networks of a list without its word `unix`. IPv4-mapped ones are returned as IPv4."""
    found: list[Network] = []
    for word in read.words(name):
        if word.lower() == "unix":
            continue
        try:
            network = ipaddress.ip_network(word, strict=False)
        except ValueError:
            read.problem(f"{name} has {word!r}: use addresses, networks like 10.0.0.0/8, or unix")
            continue
        if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_IPV4_MAPPED):
            first = ipaddress.IPv4Address(int(network.network_address) & 0xFFFF_FFFF)
            network = ipaddress.IPv4Network((first, network.prefixlen - 96))
        found.append(network)
    return tuple(found)


def trusts_unix_peer(read: Reader, name: str) -> bool:
    """Return whether a list of proxies has the word `unix`."""
    return "unix" in map(str.lower, read.words(name))
