"""Which store INBOX_URL names."""

from urllib.parse import unquote

from socket_server.inbox.inbox import Inbox, Retention


def make(url: str, retention: Retention, *, several_nodes: bool = False) -> Inbox:
    """Return the store that a good INBOX_URL names (config.py has judged it). several_nodes: it reports what all reach."""
    scheme, _, rest = url.partition("://")
    if scheme == "memory":
        from socket_server.inbox.memory import MemoryInbox

        return MemoryInbox(retention)
    if scheme == "sqlite":
        from socket_server.inbox.sqlite.client import SqliteClient

        path, _, option = rest.partition("?")  # not urlsplit(), which ends a path at its first #
        full = option.lower() == "synchronous=full"
        return SqliteClient(unquote(path[1:]), retention, synchronous="FULL" if full else "NORMAL")
    from socket_server.cluster.scripts import CONNECTIONS
    from socket_server.inbox.redis.store import RedisInbox

    return RedisInbox(url, retention, counted=CONNECTIONS if several_nodes else "")
