"""Builds the settings from the environment and the file of settings. The environment wins over the file."""

import os
from collections.abc import Mapping

from socket_server.config import addresses, env_file, redis_url, tokens
from socket_server.config.reader import Reader
from socket_server.config.settings import TRANSPORTS, Settings
from socket_server.config.weaknesses import NEW_SECRET
from socket_server.errors import ConfigError

MAX_WORKERS = 256
# Why a second process needs Redis.
NEEDS_REDIS = "each worker would know only its own connections, and broadcasts would miss the rest"


def load(app_env: str = "") -> Settings:
    """Return the settings of this process: its environment over the file of settings.

    app_env: the value of APP_ENV if neither sets it. Raises ConfigError with every problem at once.
    """
    from_file = env_file.read(os.environ.get("ENV_FILE"))
    default = {"APP_ENV": app_env} if app_env else {}
    given = {name: value for name, value in os.environ.items() if value.strip()}
    return from_environ(default | from_file | given)


def from_environ(environ: Mapping[str, str]) -> Settings:
    """Return the settings in these variables. An empty variable counts as unset.

    Raises ConfigError with every problem at once.
    """
    default = Settings()
    read = Reader(environ)
    app_env = read.choice("APP_ENV", ("production", "development"), _default_env(environ))
    development = app_env == "development"
    secrets, api_keys = read.words("JWT_SECRET"), _api_keys(read)
    pem = tokens.public_key(read, "JWT_PUBLIC_KEY")
    jwks_url = tokens.jwks_url(read, "JWT_JWKS_URL", development=development)
    if not development:
        _require_secrets(read, has_jwt_key=bool(secrets or pem or jwks_url), has_api_keys=bool(api_keys))
    if any("-----BEGIN" in secret for secret in secrets):
        read.problem("JWT_SECRET holds a PEM, which is no HMAC secret: put a public key into JWT_PUBLIC_KEY")
    ssl_cert, ssl_key = _tls(read)
    redis = _redis_url(read, "REDIS_URL")
    settings = Settings(
        app_env=app_env,
        host=addresses.host(read, "HOST", default.host),
        port=read.integer("PORT", default.port, 1, 65_535),
        base_path=addresses.base_path(read, "BASE_PATH"),
        client_origins=addresses.origins(read, "CLIENT_URL", default.client_origins, development=development),
        jwt_secrets=secrets,
        jwt_public_key=pem,
        jwt_jwks_url=jwks_url,
        jwt_algorithms=tokens.algorithms(read, "JWT_ALGORITHMS", secret=bool(secrets), pem=pem, jwks=bool(jwks_url)),
        jwt_audience=read.words("JWT_AUDIENCE"),
        jwt_issuer=read.words("JWT_ISSUER"),
        jwt_leeway_s=read.number("JWT_LEEWAY", default.jwt_leeway_s, 0, 3_600),
        jwt_user_claims=(claim,) if (claim := read.text("JWT_USER_CLAIM", "")) else default.jwt_user_claims,
        jwt_cookie=read.cookie_name("JWT_COOKIE", default.jwt_cookie),
        user_cookie=read.cookie_name("USER_COOKIE", default.user_cookie),
        api_keys=() if api_keys == ("none",) else api_keys,
        api_open=api_keys == ("none",),
        auth_timeout_s=read.number("AUTH_TIMEOUT", default.auth_timeout_s, 0.1, 3_600),
        ping_interval_s=read.number("PING_INTERVAL", default.ping_interval_s, 0.1, 86_400),
        ping_timeout_s=read.number("PING_TIMEOUT", default.ping_timeout_s, 0.1, 86_400),
        max_connections=read.integer("MAX_CONNECTIONS", default.max_connections, 1, 10_000_000),
        max_connections_per_user=read.integer("MAX_CONNECTIONS_PER_USER", default.max_connections_per_user, 1, 1_000_000),
        max_connections_per_ip=read.integer("MAX_CONNECTIONS_PER_IP", default.max_connections_per_ip, 0, 10_000_000),
        max_events_per_second=read.number("MAX_EVENTS_PER_SECOND", default.max_events_per_second, 1, 1_000_000),
        max_auth_failures_per_minute=read.number(
            "MAX_AUTH_FAILURES_PER_MINUTE", default.max_auth_failures_per_minute, 1, 1_000_000
        ),
        max_message_bytes=read.integer("MAX_MESSAGE_BYTES", default.max_message_bytes, 1_024, 134_217_728),
        max_body_bytes=read.integer("MAX_BODY_BYTES", default.max_body_bytes, 1_024, 1_073_741_824),
        max_users_per_broadcast=read.integer("MAX_USERS_PER_BROADCAST", default.max_users_per_broadcast, 1, 10_000_000),
        send_backlog_bytes=read.integer("SEND_BACKLOG_BYTES", default.send_backlog_bytes, 1_024, 1_073_741_824),
        inbox_url=_inbox_url(read, redis, default.inbox_url),
        inbox_ttl_s=read.number("INBOX_TTL", default.inbox_ttl_s, 1, 315_360_000),
        inbox_max_per_user=read.integer("INBOX_MAX_PER_USER", default.inbox_max_per_user, 1, 20_000),
        redis_url=redis,
        redis_prefix=_redis_prefix(read, "REDIS_PREFIX", default.redis_prefix),
        node_name=read.matching(
            "NODE_NAME", default.node_name, r"[A-Za-z0-9._-]{1,64}", "use up to 64 letters, digits, dots, - and _"
        ),
        workers=_workers(read, redis),
        transports=read.subset("TRANSPORTS", TRANSPORTS),
        io_uring=read.choice("IO_URING", ("on", "off"), "on") == "on",
        drain_s=read.number("DRAIN_SECONDS", default.drain_s, 0, 3_600),
        log_level=read.choice("LOG_LEVEL", ("debug", "info", "warning", "error"), default.log_level),
        log_format=read.choice("LOG_FORMAT", ("text", "json"), default.log_format),
        ssl_cert=ssl_cert,
        ssl_key=ssl_key,
        metrics=read.choice("METRICS", ("key", "open", "off"), default.metrics),
        demo=read.flag("DEMO"),
        trusted_proxies=read.networks("TRUSTED_PROXIES"),
        trust_unix_peer="unix" in map(str.lower, read.words("TRUSTED_PROXIES")),
        quoted=_quoted(environ),
    )
    if read.problems:
        raise ConfigError(read.problems)
    return settings


# The variables of this server; others in the environment are none of its business.
VARIABLES = (
    *("API_KEYS", "APP_ENV", "AUTH_TIMEOUT", "BASE_PATH", "CLIENT_URL", "DEMO", "DRAIN_SECONDS", "HOST"),
    *("INBOX_MAX_PER_USER", "INBOX_TTL", "INBOX_URL", "IO_URING", "JWT_ALGORITHMS", "JWT_AUDIENCE", "JWT_COOKIE"),
    *("JWT_ISSUER", "JWT_JWKS_URL", "JWT_LEEWAY", "JWT_PUBLIC_KEY", "JWT_SECRET", "JWT_USER_CLAIM", "LOG_FORMAT"),
    *("LOG_LEVEL", "MAX_AUTH_FAILURES_PER_MINUTE", "MAX_BODY_BYTES", "MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_IP"),
    *("MAX_CONNECTIONS_PER_USER", "MAX_EVENTS_PER_SECOND", "MAX_MESSAGE_BYTES", "MAX_USERS_PER_BROADCAST"),
    "METRICS",
    *("NODE_NAME", "PING_INTERVAL", "PING_TIMEOUT", "PORT", "REDIS_PREFIX", "REDIS_URL", "SEND_BACKLOG_BYTES"),
    *("SSL_CERT", "SSL_KEY", "STATE_DIRECTORY", "TRANSPORTS", "TRUSTED_PROXIES", "USER_COOKIE", "WEB_CONCURRENCY"),
)


def _default_env(environ: Mapping[str, str]) -> str:
    # `flask run` sets FLASK_RUN_FROM_CLI. Under every other server production is the safe default.
    return "development" if environ.get("FLASK_RUN_FROM_CLI") == "true" else "production"


def _quoted(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables with quotation marks around their value, as `docker run --env-file` passes them on."""
    values = {name: environ.get(name, "").strip() for name in VARIABLES}
    return tuple(name for name, value in values.items() if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"")


def _api_keys(read: Reader) -> tuple[str, ...]:
    keys = read.words("API_KEYS")
    if "none" in keys and keys != ("none",):
        read.problem("API_KEYS has 'none' beside other keys: give keys, or 'none' alone to run open")
    if any(not (key.isascii() and key.isprintable()) for key in keys):
        read.problem(
            f"API_KEYS has a key with characters that an HTTP header cannot carry: use ASCII letters and digits; "
            f"make one with {NEW_SECRET}"
        )
    return keys


def _require_secrets(read: Reader, *, has_jwt_key: bool, has_api_keys: bool) -> None:
    if not has_jwt_key and not read.has_problem("JWT_PUBLIC_KEY", "JWT_JWKS_URL"):
        read.problem(
            "JWT_SECRET is missing, and so are JWT_PUBLIC_KEY and JWT_JWKS_URL: set the one that your tokens are "
            f"signed with; a new secret: {NEW_SECRET}"
        )
    if not has_api_keys:
        read.problem(
            "API_KEYS is missing: set the key(s) that your back end sends as 'Authorization: Bearer …' (make one: "
            f"{NEW_SECRET}), or API_KEYS=none to run open behind a private network"
        )


def _tls(read: Reader) -> tuple[str, str]:
    cert, key = read.file("SSL_CERT"), read.file("SSL_KEY")
    for given, missing in (("SSL_CERT", "SSL_KEY"), ("SSL_KEY", "SSL_CERT")):
        if read.raw(given) and not read.raw(missing):
            read.problem(f"{given} is set without {missing}: set both to serve TLS, or neither")
    if cert and key and not read.has_problem("SSL_CERT", "SSL_KEY"):
        read.certificate(cert, key)
    return cert, key


def _redis_url(read: Reader, name: str) -> str:
    value = read.raw(name)
    problem = redis_url.problem_with(value) if value else ""
    if problem:
        read.problem(f"{name} {problem}")
        return ""
    return value


def _redis_prefix(read: Reader, name: str, default: str) -> str:
    value = read.text(name, default)
    problem = redis_url.problem_with_prefix(value)
    if problem:
        read.problem(f"{name} is {value!r}: {problem}")
    return value


def _inbox_url(read: Reader, redis: str, default: str) -> str:
    # systemd names the directory that it gives to a service by STATE_DIRECTORY, and so does the Docker image.
    directory = read.raw("STATE_DIRECTORY").partition(":")[0]
    value = read.raw("INBOX_URL") or redis or (f"sqlite:///{directory}/inbox.db" if directory else default)
    scheme, _, rest = value.partition("://")
    if scheme == "sqlite":
        path, _, options = rest.partition("?")
        if not path.startswith("/") or len(path) == 1:
            read.problem("INBOX_URL names no file: use sqlite:///relative.db or sqlite:////absolute/inbox.db")
        if options.lower() not in ("", "synchronous=normal", "synchronous=full"):
            read.problem(f"INBOX_URL has the option {options!r}: the only option is ?synchronous=full")
    elif scheme in redis_url.SCHEMES:
        _redis_url(read, "INBOX_URL")
    elif value != "memory://":
        read.problem("INBOX_URL names no kind of inbox: use sqlite:///path/inbox.db, redis://host:6379 or memory://")
    if redis and value != redis and not read.has_problem("INBOX_URL", "REDIS_URL"):
        read.problem(
            "INBOX_URL is another store than REDIS_URL: the nodes of a cluster share their inbox in its Redis; "
            "leave INBOX_URL out"
        )
    return value


def _workers(read: Reader, redis: str) -> int:
    workers = read.integer("WEB_CONCURRENCY", 1, 1, MAX_WORKERS)
    if workers > 1 and not redis and not read.has_problem("REDIS_URL"):
        read.problem(
            f"WEB_CONCURRENCY is {workers} without REDIS_URL: {NEEDS_REDIS}; set REDIS_URL, or run one worker "
            "(unset WEB_CONCURRENCY), which holds MAX_CONNECTIONS by itself"
        )
    return workers
