"""Clients of Redis: connection pools with the options that this server relies on."""

from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from socket_server.config.redis_url import FORMS
from socket_server.errors import ConfigError

CONNECT_TIMEOUT_S = 3.0
TIMEOUT_S = 5.0  # for an answer
_HEALTH_CHECK_S = 30  # a connection that was idle for longer is checked with PING before it is used

_SENTINEL_PORT = 26_379


def connect(url: str, connections: int) -> tuple["redis.Redis", str]:
    """Return a client, and the place of its server for messages, without a password. It does not connect yet.

    url: as config/redis_url.py accepts it. connections: the most that are open at once.
    Nothing is retried: an append whose answer was lost may have been stored. Raises ConfigError if the URL is malformed.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": _HEALTH_CHECK_S,
        "retry": Retry(NoBackoff(), 0),
        # RESP3 has no use here, and redis-py's connections are slower with it, because they look for push messages.
        "protocol": 2,
        "max_connections": connections,
    }
    try:
        if url.startswith("redis+sentinel://"):
            return _connect_by_sentinel(url, options)
        if url.startswith("unix://"):
            del options["socket_keepalive"]
        client = redis.Redis.from_url(url, **options)
    except (ValueError, TypeError, redis.RedisError):
        # The library's message may contain the password.
        raise ConfigError([f"the Redis URL cannot be read: use {FORMS}, with the password percent-encoded"]) from None
    facts = client.connection_pool.connection_kwargs
    place = facts["path"] if "path" in facts else f"{facts.get('host', 'localhost')}:{facts.get('port', 6379)}"
    return client, f"{url.partition('://')[0]}://{place}"


def _connect_by_sentinel(url: str, options: dict[str, Any]) -> tuple["redis.Redis", str]:
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = (unquote(each) for each in credentials.partition(":"))
    service, _, db = parts.path.strip("/").partition("/")
    if not service or not hosts or parts.query or parts.fragment:
        raise ValueError("not a Sentinel URL")
    addresses = []
    for host in hosts.split(","):
        address = urlsplit(f"//{host}")
        addresses.append((address.hostname or "localhost", address.port or _SENTINEL_PORT))
    # Without a password for the Sentinels themselves, as they are usually run.
    make: Any = Sentinel  # it has no types
    client: redis.Redis = make(addresses, sentinel_kwargs=options).master_for(
        unquote(service),
        redis_class=redis.Redis,
        db=int(db or 0),
        username=username or None,
        password=password or None,
        **options,
    )
    return client, f"redis+sentinel://{hosts}/{service}"
