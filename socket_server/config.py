"""Settings: one frozen value, read from the environment (or a `.env` file) once, every problem reported at once.

The environment wins over the file. `ENV_FILE` names another file than `.env`; empty, none is read.
"""

import ipaddress
import math
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import dotenv
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from socket_server.errors import ConfigError

HMAC_ALGORITHMS = ("HS256", "HS384", "HS512")
RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
EC_ALGORITHMS = ("ES256", "ES256K", "ES384", "ES512")
EDDSA_ALGORITHMS = ("EdDSA",)
ASYMMETRIC_ALGORITHMS = RSA_ALGORITHMS + EC_ALGORITHMS + EDDSA_ALGORITHMS

NEW_SECRET = 'python3 -c "import secrets; print(secrets.token_urlsafe(48))"'  # noqa: S105 - the command that makes one

# RFC 7518 section 3.2: an HMAC key is at least as long as its hash; 32 bytes for HS256.
MIN_HMAC_SECRET_BYTES = 32

TRANSPORTS = ("polling", "websocket")  # Engine.IO's, as a client asks for them

REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel")

MAX_WORKERS = 256
# Why a second process needs Redis.
ALONE = "each worker would know only its own connections, and broadcasts would miss the rest"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator decided. The defaults are those of the README's table; units are in the names."""

    app_env: str = "production"
    host: str = "0.0.0.0"  # noqa: S104 - a server for other machines listens on all addresses
    port: int = 3001
    client_origins: tuple[str, ...] = ("http://localhost:5173",)  # "*": any, in development only
    jwt_secrets: tuple[str, ...] = field(
        default=(), repr=False
    )  # newest first; the older ones verify while a rotation lasts
    jwt_public_key: str = ""  # PEM
    jwt_jwks_url: str = ""
    jwt_algorithms: tuple[str, ...] = ()  # as resolved: never empty once there is a key
    jwt_audience: str = ""  # empty: not checked
    jwt_issuer: str = ""  # empty: not checked
    jwt_leeway_s: float = 10
    jwt_user_claims: tuple[str, ...] = ("id", "userId", "sub")  # the first present holds the user id
    jwt_cookie: str = "jwt"
    user_cookie: str = "id"
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    api_open: bool = False  # API_KEYS=none: anyone who reaches the port may broadcast
    auth_timeout_s: float = 10
    ping_interval_s: float = 25
    ping_timeout_s: float = 60
    max_connections: int = 10_000
    max_connections_per_user: int = 20
    max_connections_per_ip: int = 0  # 0: no limit
    max_events_per_second: float = 20  # of one connection; a burst of 2.5 times as many is let through
    max_auth_failures_per_minute: float = 300  # of one address; above it its handshakes are answered 429
    max_message_bytes: int = 65_536
    max_body_bytes: int = 1_048_576
    max_users_per_broadcast: int = 10_000
    send_backlog_bytes: int = 1_048_576
    inbox_url: str = field(default="sqlite:///instance/inbox.db", repr=False)  # where the server is started
    inbox_ttl_s: float = 604_800  # how long a missed notification is kept
    inbox_max_per_user: int = 1_000  # above it the oldest goes
    # Empty: this process is the whole server; else all processes with the same one act as one.
    redis_url: str = field(default="", repr=False)
    node_name: str = "node"  # what the name of each process of this machine begins with
    workers: int = 1  # processes on one port
    transports: tuple[str, ...] = TRANSPORTS
    io_uring: bool = True  # broadcasts are written by it where the kernel allows it
    drain_s: float = 10
    log_level: str = "info"
    log_format: str = "text"
    ssl_cert: str = ""
    ssl_key: str = ""
    demo: bool = False  # the page at / in production too
    trusted_proxies: tuple[Network, ...] = ()  # whose X-Forwarded-For is believed

    @property
    def development(self) -> bool:
        return self.app_env == "development"

    @property
    def has_jwt_key(self) -> bool:
        """Whether there is a key to verify tokens with; in development one is made up for the run."""
        return bool(self.jwt_secrets or self.jwt_public_key or self.jwt_jwks_url)

    @property
    def serves_page(self) -> bool:
        return self.development or self.demo

    @property
    def local_url(self) -> str:
        """Where a client on this machine reaches the server."""
        host = {"0.0.0.0": "localhost", "::": "localhost", "127.0.0.1": "localhost"}.get(self.host, self.host)  # noqa: S104
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self.ssl_cert else 'http'}://{host}:{self.port}"

    def warnings(self) -> list[str]:
        """What an operator should know at every start, though it stops nobody."""
        found = []
        if self.api_open:
            found.append("API_KEYS=none: anyone who reaches this port can broadcast; keep it behind a private network")
        if self.inbox_url.startswith("memory:"):
            found.append("INBOX_URL=memory://: what users miss is forgotten when this process ends")
        if any(len(secret.encode()) < MIN_HMAC_SECRET_BYTES for secret in self.jwt_secrets):
            found.append(
                f"JWT_SECRET is shorter than {MIN_HMAC_SECRET_BYTES} bytes and can be guessed; make one with {NEW_SECRET}"
            )
        if self.development and self.host not in ("127.0.0.1", "::1", "localhost"):
            found.append("APP_ENV=development: made for one developer's machine, not for the internet")
        return found


def load(app_env: str = "") -> Settings:
    """Read the settings of this process: its environment over the `.env` file of the working directory.

    app_env: what APP_ENV is where neither says. Raises ConfigError with every problem at once.
    """
    env_file = os.environ.get("ENV_FILE", ".env")
    from_file = dotenv.dotenv_values(env_file, interpolate=False) if env_file else {}
    default = {"APP_ENV": app_env} if app_env else {}
    given = {name: value for name, value in os.environ.items() if value.strip()}
    return from_environ(default | {name: value for name, value in from_file.items() if value} | given)


def from_environ(environ: Mapping[str, str]) -> Settings:
    """Turn variables into Settings; an empty variable counts as unset. Raises ConfigError with every problem at once."""
    default = Settings()
    read = _Reader(environ)
    app_env = read.choice("APP_ENV", ("production", "development"), _default_env(environ))
    development = app_env == "development"
    secrets = read.words("JWT_SECRET")
    public_key = read.pem("JWT_PUBLIC_KEY")
    jwks_url = read.jwks_url("JWT_JWKS_URL", development)
    keys = read.words("API_KEYS")
    api_open = keys == ("none",)
    if "none" in keys and not api_open:
        read.problem("API_KEYS has 'none' beside other keys: give keys, or 'none' alone to run open")
    if not development:
        if not (secrets or public_key or jwks_url) and not read.complained_of("JWT_PUBLIC_KEY", "JWT_JWKS_URL"):
            read.problem(
                "JWT_SECRET is missing, and so are JWT_PUBLIC_KEY and JWT_JWKS_URL: set the one that your tokens are "
                f"signed with; a new secret: {NEW_SECRET}"
            )
        if not keys:
            read.problem(
                "API_KEYS is missing: set the key(s) that your back end sends as 'Authorization: Bearer …' (make one: "
                f"{NEW_SECRET}), or API_KEYS=none to run open behind a private network"
            )
    if any("-----BEGIN" in secret for secret in secrets):
        read.problem("JWT_SECRET holds a PEM, which is no HMAC secret: put a public key into JWT_PUBLIC_KEY")
    ssl_cert, ssl_key = read.file("SSL_CERT"), read.file("SSL_KEY")
    for given, missing in (("SSL_CERT", "SSL_KEY"), ("SSL_KEY", "SSL_CERT")):
        if read.raw(given) and not read.raw(missing):
            read.problem(f"{given} is set without {missing}: set both to serve TLS, or neither")
    if ssl_cert and ssl_key and not read.complained_of("SSL_CERT", "SSL_KEY"):
        read.certificate(ssl_cert, ssl_key)
    redis_url = read.redis_url("REDIS_URL")
    settings = Settings(
        app_env=app_env,
        host=read.text("HOST", default.host),
        port=int(read.number("PORT", default.port, 1, 65_535, whole=True)),
        client_origins=read.origins("CLIENT_URL", default.client_origins, development),
        jwt_secrets=secrets,
        jwt_public_key=public_key,
        jwt_jwks_url=jwks_url,
        jwt_algorithms=_algorithms(read, bool(secrets), public_key, bool(jwks_url)),
        jwt_audience=read.text("JWT_AUDIENCE", ""),
        jwt_issuer=read.text("JWT_ISSUER", ""),
        jwt_leeway_s=read.number("JWT_LEEWAY", default.jwt_leeway_s, 0, 3_600),
        jwt_user_claims=(claim,) if (claim := read.text("JWT_USER_CLAIM", "")) else default.jwt_user_claims,
        jwt_cookie=read.cookie_name("JWT_COOKIE", default.jwt_cookie),
        user_cookie=read.cookie_name("USER_COOKIE", default.user_cookie),
        api_keys=() if api_open else keys,
        api_open=api_open,
        auth_timeout_s=read.number("AUTH_TIMEOUT", default.auth_timeout_s, 0.1, 3_600),
        ping_interval_s=read.number("PING_INTERVAL", default.ping_interval_s, 0.1, 86_400),
        ping_timeout_s=read.number("PING_TIMEOUT", default.ping_timeout_s, 0.1, 86_400),
        max_connections=int(read.number("MAX_CONNECTIONS", default.max_connections, 1, 10_000_000, whole=True)),
        max_connections_per_user=int(
            read.number("MAX_CONNECTIONS_PER_USER", default.max_connections_per_user, 1, 1_000_000, whole=True)
        ),
        max_connections_per_ip=int(
            read.number("MAX_CONNECTIONS_PER_IP", default.max_connections_per_ip, 0, 10_000_000, whole=True)
        ),
        max_events_per_second=read.number("MAX_EVENTS_PER_SECOND", default.max_events_per_second, 1, 1_000_000),
        max_auth_failures_per_minute=read.number(
            "MAX_AUTH_FAILURES_PER_MINUTE", default.max_auth_failures_per_minute, 1, 1_000_000
        ),
        max_message_bytes=int(read.number("MAX_MESSAGE_BYTES", default.max_message_bytes, 1_024, 134_217_728, whole=True)),
        max_body_bytes=int(read.number("MAX_BODY_BYTES", default.max_body_bytes, 1_024, 1_073_741_824, whole=True)),
        max_users_per_broadcast=int(
            read.number("MAX_USERS_PER_BROADCAST", default.max_users_per_broadcast, 1, 10_000_000, whole=True)
        ),
        send_backlog_bytes=int(
            read.number("SEND_BACKLOG_BYTES", default.send_backlog_bytes, 1_024, 1_073_741_824, whole=True)
        ),
        inbox_url=_inbox_url(read, redis_url, default.inbox_url),
        inbox_ttl_s=read.number("INBOX_TTL", default.inbox_ttl_s, 1, 315_360_000),
        inbox_max_per_user=int(read.number("INBOX_MAX_PER_USER", default.inbox_max_per_user, 1, 20_000, whole=True)),
        redis_url=redis_url,
        node_name=read.node_name("NODE_NAME", default.node_name),
        workers=_workers(read, redis_url),
        transports=read.transports("TRANSPORTS"),
        io_uring=read.choice("IO_URING", ("on", "off"), "on") == "on",
        drain_s=read.number("DRAIN_SECONDS", default.drain_s, 0, 3_600),
        log_level=read.choice("LOG_LEVEL", ("debug", "info", "warning", "error"), default.log_level),
        log_format=read.choice("LOG_FORMAT", ("text", "json"), default.log_format),
        ssl_cert=ssl_cert,
        ssl_key=ssl_key,
        demo=read.flag("DEMO"),
        trusted_proxies=read.networks("TRUSTED_PROXIES"),
    )
    if read.problems:
        raise ConfigError(read.problems)
    return settings


def _default_env(environ: Mapping[str, str]) -> str:
    # `flask run` sets FLASK_RUN_FROM_CLI; whatever else serves the app is taken for production, the safe side.
    return "development" if environ.get("FLASK_RUN_FROM_CLI") == "true" else "production"


def _inbox_url(read: "_Reader", redis_url: str, default: str) -> str:
    # In this way systemd names the directory that it gives to a service; so does the Docker image.
    directory = read.raw("STATE_DIRECTORY").partition(":")[0]
    url = read.inbox_url("INBOX_URL", redis_url or (f"sqlite:///{directory}/inbox.db" if directory else default))
    if redis_url and url != redis_url and not read.complained_of("INBOX_URL", "REDIS_URL"):
        read.problem(
            "INBOX_URL is another store than REDIS_URL: the nodes share their inbox, in the same Redis that joins them; "
            "leave INBOX_URL out"
        )
    return url


def _workers(read: "_Reader", redis_url: str) -> int:
    workers = int(read.number("WEB_CONCURRENCY", 1, 1, MAX_WORKERS, whole=True))
    if workers > 1 and not redis_url and not read.complained_of("REDIS_URL"):
        read.problem(
            f"WEB_CONCURRENCY is {workers} without REDIS_URL: {ALONE}; set REDIS_URL, or run one worker "
            "(unset WEB_CONCURRENCY), which holds MAX_CONNECTIONS by itself"
        )
    return workers


def _algorithms(read: "_Reader", secret: bool, public_key: str, jwks: bool) -> tuple[str, ...]:
    """Return the algorithms that a token may name, never one that its kind of key must not verify (RFC 8725, 3.1)."""
    possible: tuple[str, ...] = ()
    if secret or not (public_key or jwks):
        possible += HMAC_ALGORITHMS
    if jwks:
        possible += ASYMMETRIC_ALGORITHMS
    elif public_key:
        possible += algorithms_of_pem(public_key)
    wanted = read.words("JWT_ALGORITHMS")
    unusable = [name for name in wanted if name not in possible]
    if unusable and not read.complained_of("JWT_PUBLIC_KEY", "JWT_JWKS_URL"):
        read.problem(
            f"JWT_ALGORITHMS names {', '.join(unusable)}, which the configured keys cannot verify: "
            f"use some of {', '.join(possible)}"
        )
    return wanted or possible


def algorithms_of_pem(pem: str) -> tuple[str, ...]:
    """Return the JWS algorithms that this public key can verify; empty for a kind that JWS does not know.

    Raises ValueError where it is not a PEM public key.
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
            by_curve = {"secp256r1": "ES256", "secp256k1": "ES256K", "secp384r1": "ES384", "secp521r1": "ES512"}
            name = by_curve.get(key.curve.name)
            return (name,) if name else ()
        case _:
            return ()


class _Reader:
    """Reads variables one by one and remembers every problem instead of stopping at the first."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []

    def problem(self, text: str) -> None:
        self.problems.append(text)

    def complained_of(self, *names: str) -> bool:
        return any(problem.startswith(names) for problem in self.problems)

    def raw(self, name: str) -> str:
        return self._environ.get(name, "").strip()

    def text(self, name: str, default: str) -> str:
        return self.raw(name) or default

    def words(self, name: str) -> tuple[str, ...]:
        return tuple(word.strip() for word in self.raw(name).split(",") if word.strip())

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        value = self.raw(name).lower() or default
        if value not in choices:
            self.problem(f"{name} is {value!r}: use one of {', '.join(choices)}")
        return value

    def flag(self, name: str) -> bool:
        value = self.raw(name).lower()
        if value not in ("", "0", "1", "true", "false", "yes", "no"):
            self.problem(f"{name} is {value!r}: use 1 or 0")
        return value in ("1", "true", "yes")

    def number(self, name: str, default: float, low: float, high: float, *, whole: bool = False) -> float:
        value = self.raw(name)
        if not value:
            return default
        try:
            number = int(value) if whole else float(value)
        except ValueError:
            number = math.nan
        if not low <= number <= high:  # NaN is not
            self.problem(f"{name} is {value!r}: use a {'whole ' if whole else ''}number from {low:,} to {high:,}")
            return default
        return number

    def file(self, name: str) -> str:
        path = self.raw(name)
        if path:
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                self.problem(f"{name} is {path!r}, which cannot be read ({error.strerror}): name a readable PEM file")
        return path

    def certificate(self, cert: str, key: str) -> None:
        try:
            # Without a password of its own, OpenSSL would ask for one on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
        except (OSError, ValueError) as error:
            self.problem(
                f"SSL_CERT and SSL_KEY do not work together ({error}): give a PEM chain and its private key, "
                "without a passphrase"
            )

    def pem(self, name: str) -> str:
        value = self.raw(name)
        if not value:
            return ""
        # Platforms that hold settings on one line carry a PEM's line ends as a backslash and an n.
        pem = value.replace("\\n", "\n")
        if "-----BEGIN" not in pem:
            try:
                pem = Path(value).read_text(encoding="ascii")
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not text"
                self.problem(f"{name} is neither a PEM nor the path of a readable one ({reason}): give a public key")
                return ""
        if "PRIVATE KEY-----" in pem:
            self.problem(f"{name} holds a private key: give the public one (openssl pkey -in private.pem -pubout)")
            return ""
        try:
            usable = algorithms_of_pem(pem)
        except ValueError:
            self.problem(f"{name} is not a PEM public key: it starts with -----BEGIN PUBLIC KEY-----")
            return ""
        if not usable:
            self.problem(f"{name} is of a kind that tokens are not signed with: use RSA, EC (P-256/384/521) or Ed25519")
            return ""
        return pem

    def jwks_url(self, name: str, development: bool) -> str:
        value = self.raw(name)
        if not value:
            return ""
        try:
            url = urlsplit(value)
            hostname = url.hostname
        except ValueError:
            url, hostname = urlsplit(""), None
        loopback = hostname in ("localhost", "127.0.0.1", "::1")
        if not (url.scheme == "https" or (url.scheme == "http" and (loopback or development))) or not hostname:
            self.problem(f"{name} is {value!r}: give an https:// URL (http:// only on this machine)")
        return value

    def inbox_url(self, name: str, default: str) -> str:
        value = self.raw(name) or default
        scheme, _, rest = value.partition("://")
        path, _, options = rest.partition("?")
        if scheme == "sqlite":
            if not path.startswith("/") or len(path) == 1:
                self.problem(f"{name} names no file: use sqlite:///relative.db or sqlite:////absolute/inbox.db")
            if options.lower() not in ("", "synchronous=normal", "synchronous=full"):
                self.problem(f"{name} has the option {options!r}: the one there is is ?synchronous=full")
        elif value != "memory://" and scheme not in REDIS_SCHEMES:
            self.problem(f"{name} names no kind of inbox: use sqlite:///path/inbox.db, redis://host:6379 or memory://")
        return value

    def redis_url(self, name: str) -> str:
        value = self.raw(name)
        if value and value.partition("://")[0] not in REDIS_SCHEMES:
            self.problem(
                f"{name} names no Redis: use redis://:password@host:6379/0, rediss://…, unix:///… or redis+sentinel://…"
            )
            return ""
        return value

    def node_name(self, name: str, default: str) -> str:
        value = self.text(name, default)
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value):
            self.problem(f"{name} is {value!r}: use up to 64 letters, digits, dots, - and _")
        return value

    def transports(self, name: str) -> tuple[str, ...]:
        words = self.words(name) or TRANSPORTS
        unknown = [word for word in words if word not in TRANSPORTS]
        if unknown:
            self.problem(f"{name} names {', '.join(unknown)}: use {' or '.join(TRANSPORTS)}, or both")
        return words

    def origins(self, name: str, default: tuple[str, ...], development: bool) -> tuple[str, ...]:
        origins = []
        for word in self.words(name) or default:
            if word == "*":
                if not development:
                    self.problem(
                        f"{name} is '*', which would let any web site use your users' cookies: "
                        "list your sites, like https://app.example.com"
                    )
                origins.append(word)
                continue
            if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s?#@]+/?", word, re.IGNORECASE):
                self.problem(f"{name} has {word!r}: an origin is a scheme and a host, like https://app.example.com")
                continue
            origins.append(_serialised_origin(word))
        return tuple(origins)

    def cookie_name(self, name: str, default: str) -> str:
        value = self.text(name, default)
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", value):  # a token, RFC 6265 section 4.1.1
            self.problem(f"{name} is {value!r}: a cookie's name has letters, digits, - and _ only")
        return value

    def networks(self, name: str) -> tuple[Network, ...]:
        def parse(word: str) -> Network | None:
            try:
                return ipaddress.ip_network(word, strict=False)
            except ValueError:
                self.problem(f"{name} has {word!r}: use addresses or networks, like 10.0.0.0/8")
                return None

        return tuple(network for word in self.words(name) if (network := parse(word)))


def _serialised_origin(word: str) -> str:
    """Return the origin as browsers write it (RFC 6454 section 6.2): lower case, no slash, no default port."""
    scheme, _, rest = word.rstrip("/").lower().partition("://")
    default_port = {"http": ":80", "https": ":443"}.get(scheme, "")
    return f"{scheme}://{rest.removesuffix(default_port)}"
