"""Builds the settings from the environment and the file of settings. The environment wins over the file."""

import os
from collections.abc import Mapping

from socket_server.config import addresses, credentials, env_file, stores, tls, tokens
from socket_server.config.reader import Reader
from socket_server.config.settings import TRANSPORTS, Settings
from socket_server.config.weaknesses import quotation_marks
from socket_server.errors import ConfigError


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
    secrets, api_keys = credentials.jwt_secrets(read, "JWT_SECRET"), credentials.api_keys(read, "API_KEYS")
    pem = tokens.public_key(read, "JWT_PUBLIC_KEY")
    jwks_url = tokens.jwks_url(read, "JWT_JWKS_URL", development=development)
    if not development:
        credentials.require(read, has_jwt_key=bool(secrets or pem or jwks_url), has_api_keys=bool(api_keys))
    ssl_cert, ssl_key = tls.certificate(read, "SSL_CERT", "SSL_KEY")
    redis = stores.redis_url(read, "REDIS_URL")
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
        inbox_url=stores.inbox_url(read, "INBOX_URL", redis, default.inbox_url),
        inbox_ttl_s=read.number("INBOX_TTL", default.inbox_ttl_s, 1, 315_360_000),
        inbox_max_per_user=read.integer("INBOX_MAX_PER_USER", default.inbox_max_per_user, 1, 20_000),
        redis_url=redis,
        redis_prefix=stores.redis_prefix(read, "REDIS_PREFIX", default.redis_prefix),
        node_name=read.matching(
            "NODE_NAME", default.node_name, r"[A-Za-z0-9._-]{1,64}", "use up to 64 letters, digits, dots, - and _"
        ),
        workers=stores.workers(read, "WEB_CONCURRENCY", redis),
        transports=read.subset("TRANSPORTS", TRANSPORTS),
        io_uring=read.choice("IO_URING", ("on", "off"), "on") == "on",
        drain_s=read.number("DRAIN_SECONDS", default.drain_s, 0, 3_600),
        log_level=read.choice("LOG_LEVEL", ("debug", "info", "warning", "error"), default.log_level),
        log_format=read.choice("LOG_FORMAT", ("text", "json"), default.log_format),
        ssl_cert=ssl_cert,
        ssl_key=ssl_key,
        metrics=read.choice("METRICS", ("key", "open", "off"), default.metrics),
        demo=read.flag("DEMO"),
        trusted_proxies=addresses.networks(read, "TRUSTED_PROXIES"),
        trust_unix_peer=addresses.trusts_unix_peer(read, "TRUSTED_PROXIES"),
        quoted=read.quoted(),
    )
    if read.problems:
        raise ConfigError([*read.problems, *map(quotation_marks, filter(read.has_problem, settings.quoted))])
    return settings


def _default_env(environ: Mapping[str, str]) -> str:
    # `flask run` sets FLASK_RUN_FROM_CLI. Under every other server production is the safe default.
    return "development" if environ.get("FLASK_RUN_FROM_CLI") == "true" else "production"
