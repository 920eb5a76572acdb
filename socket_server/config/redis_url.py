"""URLs of Redis: what may be in them. A problem never repeats a part of the URL, which may be part of its password."""

import re
from urllib.parse import parse_qsl

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel")
FORMS = "redis://:password@host:6379/0, rediss://…, unix:///path/to/socket or redis+sentinel://host1,host2/service/0"

_TLS_OPTIONS = frozenset(
    {
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_keyfile",
        "ssl_keyfile_password",
    }
)
# Options of the client library that this server sets itself, because it relies on them.
_OWN_OPTIONS = frozenset(
    {
        "client_name",
        "decode_responses",
        "encoding",
        "encoding_errors",
        "health_check_interval",
        "max_connections",
        "protocol",
        "retry_on_error",
        "retry_on_timeout",
        "single_connection_client",
        "socket_connect_timeout",
        "socket_keepalive",
        "socket_read_size",
        "socket_timeout",
        "timeout",
    }
)


def problem_with(url: str) -> str:
    """Return what is wrong with a URL of Redis and how to fix it, or "".

    The text follows the name of the variable: "REDIS_URL has …".
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        return f"names no Redis: use {FORMS}"
    if not url.isprintable() or re.search(r"\s", url):
        return "contains white space or control characters: percent-encode them"
    main, _, query = rest.partition("?")
    authority, slash, path = main.partition("/")
    if "#" in url or "@" in query or "@" in path or authority.count("@") > 1:
        return (
            "is ambiguous: percent-encode @ / ? and # in the user name and the password (%40 %2F %3F %23), "
            "so that no part of them is taken for the host"
        )
    place = authority.rpartition("@")[2]
    return (
        _problem_with_place(scheme, place)
        or _problem_with_path(scheme, slash + path)
        or _problem_with_options(scheme, query)
    )


def _problem_with_place(scheme: str, place: str) -> str:
    if scheme == "unix":
        return "" if not place else "names a host: a Unix socket is unix:///path/to/socket"
    hosts = place.split(",") if scheme == "redis+sentinel" else [place]
    for host in hosts:
        match = re.fullmatch(r"(?:[A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?", host)
        if match is None or (match[1] and not 1 <= int(match[1]) <= 65_535):
            return f"has a malformed host or port: use {FORMS}"
    if scheme == "redis+sentinel" and not all(hosts):
        return f"names no Sentinel: use {FORMS}"
    return ""


def _problem_with_path(scheme: str, path: str) -> str:
    if scheme == "unix":
        return "" if len(path) > 1 else "names no socket: use unix:///path/to/socket"
    parts = path.strip("/").split("/")
    database = parts[-1]
    if scheme == "redis+sentinel":
        if not parts[0]:
            return f"names no service: use {FORMS}"
        database = parts[1] if len(parts) > 1 else ""
        if len(parts) > 2:
            return f"has too long a path: use {FORMS}"
    elif len(parts) > 1:
        return f"has too long a path: use {FORMS}"
    if database and not re.fullmatch(r"[0-9]{1,6}", database):
        return (
            "has a path that is no database number: use a number, like redis://host/1; "
            "several servers share a database with a REDIS_PREFIX each"
        )
    return ""


def _problem_with_options(scheme: str, query: str) -> str:
    for name, value in parse_qsl(query, keep_blank_values=True):
        if scheme == "redis+sentinel" or name in _OWN_OPTIONS:
            return f"has the option {name}, which this server sets itself: leave it out"
        if name == "db":
            if not re.fullmatch(r"[0-9]{1,6}", value):
                return "has a db that is no database number: use a number"
        elif name not in _TLS_OPTIONS or scheme != "rediss":
            known = ", ".join(["db", *sorted(_TLS_OPTIONS)] if scheme == "rediss" else ["db"])
            return f"has the unknown option {name[:40]!r}: the options are {known}"
    return ""


def problem_with_prefix(prefix: str) -> str:
    """Return what is wrong with a prefix of keys and how to fix it, or ""."""
    if not re.fullmatch(r"[!-~]{1,64}", prefix):
        return "use up to 64 printable ASCII characters without white space"
    if not re.search(r"\{[^{}]+\}", prefix):
        return "put a part of it in braces, like {staging}:, so that a Redis Cluster keeps all its keys in one slot"
    if re.search(r"[*?\[\]\\]", prefix):
        return "use no * ? [ ] or backslash, which are patterns in Redis"
    return ""
