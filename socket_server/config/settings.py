"""The settings of a server, as one frozen value. docs/configuration.md describes the variables."""

import ipaddress
from dataclasses import dataclass, field

TRANSPORTS = ("polling", "websocket")  # of Engine.IO, as a client names them
REDIS_PREFIX = "{socket-server}:"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Settings:
    """Each field has its default. The suffix of its name is its unit: `_s` seconds, `_bytes` bytes; others are counts."""

    app_env: str = "production"  # or "development": runs without secrets, and serves the demo page

    # Listening address
    host: str = "0.0.0.0"  # noqa: S104 - an address or a host name of this machine; by default all addresses
    port: int = 3001  # TCP
    base_path: str = ""  # such as "/push", without a slash at its end; any path not below it is answered 404
    ssl_cert: str = ""  # path of a PEM certificate chain; "": plain HTTP
    ssl_key: str = ""  # path of its PEM private key
    client_origins: tuple[str, ...] = ("http://localhost:5173",)  # handshakes of pages of other origins are answered 403
    trusted_proxies: tuple[Network, ...] = ()  # whose X-Forwarded-For is believed; clients behind others have their address
    trust_unix_peer: bool = False  # the peer of a Unix socket is one of them; else clients over it have no address

    # Authentication
    jwt_secrets: tuple[str, ...] = field(default=(), repr=False)  # HMAC; each verifies tokens, the first signs
    jwt_public_key: str = ""  # PEM; "": none
    jwt_jwks_url: str = ""  # of a JWK Set; "": none
    jwt_algorithms: tuple[str, ...] = ()  # a token with another one is invalid; never empty if there is a key
    jwt_audience: tuple[str, ...] = ()  # a token's `aud` must contain one of them; empty: not checked
    jwt_issuer: tuple[str, ...] = ()  # a token's `iss` must be one of them; empty: not checked
    jwt_leeway_s: float = 10  # by which `exp` counts as later and `nbf` as earlier
    jwt_user_claims: tuple[str, ...] = ("id", "userId", "sub")  # the first one present holds the user id
    jwt_cookie: str = "jwt"  # name of the cookie with the token
    user_cookie: str = "id"  # name of the cookie with the user id
    api_keys: tuple[str, ...] = field(default=(), repr=False)  # REST calls without one of them are answered 401
    api_open: bool = False  # API_KEYS=none: every caller may use the REST API

    # Connections
    transports: tuple[str, ...] = TRANSPORTS  # a handshake over another one is answered 400
    auth_timeout_s: float = 10  # a connection that is not authenticated by then is closed
    ping_interval_s: float = 25  # between two pings to a connection
    ping_timeout_s: float = 60  # a connection whose pong is later than this is closed
    max_connections: int = 10_000  # of one worker; above it handshakes are answered 503
    max_connections_per_user: int = 20  # above it the user's oldest connection is closed
    max_connections_per_ip: int = 0  # above it handshakes are answered 429; 0: no limit
    max_events_per_second: float = (
        20  # of one connection, which is closed above it; bursts of 2.5 times as many are allowed
    )
    max_auth_failures_per_minute: float = 300  # of one address; above it its handshakes are answered 429
    max_message_bytes: int = 65_536  # of one message of a client; a larger one closes the connection
    send_backlog_bytes: int = 1_048_576  # not yet sent to one connection, which is closed above it
    io_uring: bool = True  # use it if the kernel allows it; without it each delivery costs a system call

    # REST
    max_body_bytes: int = 1_048_576  # of one request; a larger one is answered 413
    max_users_per_broadcast: int = 10_000  # a broadcast to more is answered 413
    metrics: str = "key"  # who may read /metrics: "key" callers with an API key, "open" every caller, "off" no such path
    demo: bool = False  # serve the demo page in production too

    # The inbox and the cluster
    inbox_url: str = field(default="sqlite:///instance/inbox.db", repr=False)  # a relative path: of the working directory
    inbox_ttl_s: float = 604_800  # how long a notification is kept
    inbox_max_per_user: int = 1_000  # notifications; above it the user's oldest are dropped
    redis_url: str = field(default="", repr=False)  # all servers with the same one act as one; "": this process is alone
    redis_prefix: str = REDIS_PREFIX  # of every key in Redis; servers with different ones are independent
    node_name: str = "node"  # prefix of this machine's workers in the cluster
    workers: int = 1  # processes

    # The process
    drain_s: float = 10  # over which connections are closed at shutdown
    log_level: str = "info"  # "debug" logs each delivery, "warning" no connections
    log_format: str = "text"  # or "json", an object on each line
    quoted: tuple[str, ...] = ()  # variables whose value has quotation marks around it, for a warning

    @property
    def development(self) -> bool:
        return self.app_env == "development"

    @property
    def has_jwt_key(self) -> bool:
        """Whether tokens can be verified. In development without a key, the server makes a secret at its start."""
        return bool(self.jwt_secrets or self.jwt_public_key or self.jwt_jwks_url)

    @property
    def serves_page(self) -> bool:
        return self.development or self.demo

    @property
    def local_url(self) -> str:
        """The URL of the server for a client on this machine, without a slash at its end."""
        host = {"0.0.0.0": "localhost", "::": "localhost", "127.0.0.1": "localhost"}.get(self.host, self.host)  # noqa: S104
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self.ssl_cert else 'http'}://{host}:{self.port}{self.base_path}"
