"""Makes the store that INBOX_URL names."""

from urllib.parse import unquote

from socket_server.inbox.inbox import Inbox, Retention
from socket_server.redis_access.keys import DEFAULT_KEYS, Keys


def make(url: str, retention: Retention, keys: Keys = DEFAULT_KEYS, *, several_nodes: bool = False) -> Inbox:
    """Return the store of a valid INBOX_URL (config/stores.py has checked it), not opened.

    keys: the names of keys in Redis. several_nodes: appends report the connections of all nodes.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "memory":
        from socket_server.inbox.memory import MemoryInbox

        return MemoryInbox(retention)
    if scheme == "sqlite":
        from socket_server.inbox.sqlite.client import SqliteClient

        path, _, option = rest.partition("?")  # not urlsplit(), which ends a path at its first #
        full = option.lower() == "synchronous=full"
        return SqliteClient(unquote(path[1:]), retention, synchronous="FULL" if full else "NORMAL")
    from socket_server.inbox.redis.store import RedisInbox

    return RedisInbox(url, retention, keys=keys, counts_connections=several_nodes)
