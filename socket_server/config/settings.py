"""The settings of a server, as one frozen value. docs/configuration.md describes the variables."""

import ipaddress
from dataclasses import dataclass, field

TRANSPORTS = ("polling", "websocket")  # of Engine.IO, as a client names them
REDIS_PREFIX = "{socket-server}:"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Settings:
    """The defaults are those of docs/configuration.md. The suffix of a name is its unit: `_s` seconds, `_bytes` bytes."""

    app_env: str = "production"  # "development" may run without secrets
    host: str = "0.0.0.0"  # noqa: S104 - a server for other machines listens on all addresses
    port: int = 3001
    base_path: str = ""  # such as "/push": everything is served below it; no slash at its end
    client_origins: tuple[str, ...] = ("http://localhost:5173",)  # "*": any, in development only
    jwt_secrets: tuple[str, ...] = field(default=(), repr=False)  # HMAC; each verifies, the first signs
    jwt_public_key: str = ""  # PEM
    jwt_jwks_url: str = ""
    jwt_algorithms: tuple[str, ...] = ()  # allowed ones; never empty if there is a key
    jwt_audience: tuple[str, ...] = ()  # `aud` must contain one of them; empty: not checked
    jwt_issuer: tuple[str, ...] = ()  # `iss` must be one of them; empty: not checked
    jwt_leeway_s: float = 10  # allowed difference between this clock and the issuer's
    jwt_user_claims: tuple[str, ...] = ("id", "userId", "sub")  # the first one present holds the user id
    jwt_cookie: str = "jwt"
    user_cookie: str = "id"
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    api_open: bool = False  # API_KEYS=none: every caller may use the API
    auth_timeout_s: float = 10  # a connection that is not authenticated by then is closed
    ping_interval_s: float = 25
    ping_timeout_s: float = 60  # a connection whose pong is later than this is closed
    max_connections: int = 10_000  # of one worker; above it handshakes are answered 503
    max_connections_per_user: int = 20  # above it the user's oldest connection is closed
    max_connections_per_ip: int = 0  # above it handshakes are answered 429; 0: no limit
    max_events_per_second: float = 20  # of one connection; bursts of 2.5 times as many are allowed
    max_auth_failures_per_minute: float = 300  # of one address; above it handshakes are answered 429
    max_message_bytes: int = 65_536  # of one message from a client; a larger one closes the connection
    max_body_bytes: int = 1_048_576  # of one REST request; a larger one is answered 413
    max_users_per_broadcast: int = 10_000
    send_backlog_bytes: int = 1_048_576  # unsent bytes of one connection; above it the connection is closed
    inbox_url: str = field(default="sqlite:///instance/inbox.db", repr=False)  # relative to the working directory
    inbox_ttl_s: float = 604_800  # how long a notification is kept
    inbox_max_per_user: int = 1_000  # above it the user's oldest notifications are dropped
    redis_url: str = field(default="", repr=False)  # joins all workers with the same one to a cluster; "": no cluster
    redis_prefix: str = REDIS_PREFIX  # of every key in Redis
    node_name: str = "node"  # prefix of the names of this machine's workers in a cluster
    workers: int = 1
    transports: tuple[str, ...] = TRANSPORTS
    io_uring: bool = True  # use it if the kernel allows it
    drain_s: float = 10  # time over which connections are closed at shutdown
    log_level: str = "info"
    log_format: str = "text"
    ssl_cert: str = ""  # path of a PEM
    ssl_key: str = ""  # path of a PEM
    metrics: str = "key"  # who may read /metrics: "key" callers with an API key, "open" every caller, "off" no such path
    demo: bool = False  # serve the demo page in production too
    trusted_proxies: tuple[Network, ...] = ()  # peers whose X-Forwarded-For is believed
    trust_unix_peer: bool = False  # the peer of a Unix socket is a trusted proxy
    quoted: tuple[str, ...] = ()  # names of the variables whose value has quotation marks around it

    @property
    def development(self) -> bool:
        return self.app_env == "development"

    @property
    def has_jwt_key(self) -> bool:
        """Whether tokens can be verified. In development a secret is made at start if there is none."""
        return bool(self.jwt_secrets or self.jwt_public_key or self.jwt_jwks_url)

    @property
    def serves_page(self) -> bool:
        return self.development or self.demo

    @property
    def local_url(self) -> str:
        """The URL by which a client on this machine reaches the server, without a slash at its end."""
        host = {"0.0.0.0": "localhost", "::": "localhost", "127.0.0.1": "localhost"}.get(self.host, self.host)  # noqa: S104
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self.ssl_cert else 'http'}://{host}:{self.port}{self.base_path}"
