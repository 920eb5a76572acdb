"""Which store INBOX_URL names."""

from urllib.parse import unquote, urlsplit

from socket_server.inbox.inbox import Inbox, Retention


def make(url: str, retention: Retention) -> Inbox:
    """Return the store that a good INBOX_URL names (config.py has judged it)."""
    scheme = url.partition("://")[0]
    if scheme == "memory":
        from socket_server.inbox.memory import MemoryInbox

        return MemoryInbox(retention)
    if scheme == "sqlite":
        from socket_server.inbox.embedded import EmbeddedInbox

        parts = urlsplit(url)
        full = "synchronous=full" in parts.query.lower()
        return EmbeddedInbox(unquote(parts.path[1:]), retention, synchronous="FULL" if full else "NORMAL")
    from socket_server.inbox.redis import RedisInbox

    return RedisInbox(url, retention)
