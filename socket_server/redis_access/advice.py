"""What an error of Redis means, and the remedy."""

from collections.abc import Sequence

import redis
from redis.sentinel import MasterNotFoundError

from socket_server.redis_access import client

# (error code, class of redis-py, text). Redis 7 puts a script's error code first, Redis 6 within the text; redis-py turns
# some codes into classes and removes the code.
_ADVICE: Sequence[tuple[str, type[Exception] | None, str]] = (
    ("OOM ", redis.exceptions.OutOfMemoryError, "is full: raise its maxmemory, or lower INBOX_TTL or INBOX_MAX_PER_USER"),
    ("READONLY ", redis.exceptions.ReadOnlyError, "is a read-only replica: name the primary, or use redis+sentinel://"),
    ("LOADING ", redis.exceptions.BusyLoadingError, "is still loading its data: wait until that is done"),
    ("MISCONF ", None, "cannot save to its disk (MISCONF) and refuses writes: free disk space; its log has the details"),
    ("NOREPLICAS ", None, "has fewer good replicas than min-replicas-to-write: restore them, or lower that setting"),
    ("MASTERDOWN ", redis.exceptions.MasterDownError, "is a replica that lost its primary: restore the primary"),
    ("MOVED ", redis.exceptions.MovedError, "is part of a Redis Cluster: use a Redis that is not"),
    ("CLUSTERDOWN ", redis.exceptions.ClusterDownError, "is part of a Redis Cluster: use a Redis that is not"),
    ("BUSY ", None, "is busy with another program's script: end it (SCRIPT KILL)"),
    ("NOAUTH ", redis.AuthenticationError, "asks for another user or password: put the right ones into its URL"),
    ("WRONGPASS ", None, "asks for another user or password: put the right ones into its URL"),
    ("NOPERM ", redis.exceptions.NoPermissionError, "denies this user what is needed: allow ~{prefix}* +@all"),
    ("WRONGTYPE ", None, "has data of another program under {prefix}*: set another REDIS_PREFIX, or another database"),
)


def explain(error: Exception, prefix: str, password: str = "") -> str:
    """Return what is wrong with Redis and the remedy, as the end of a sentence, without the password.

    prefix: of this server's keys.
    """
    said = str(error)
    for code, kind, advice in _ADVICE:
        if (kind is not None and isinstance(error, kind)) or said.startswith(code) or f"-{code}" in said:
            return advice.replace("{prefix}", prefix)
    if password:
        said = said.replace(password, "***")
    match error:
        case MasterNotFoundError():
            return "has no primary that the Sentinels know of: check them (SENTINEL MASTERS) and the service's name"
        case redis.exceptions.MaxConnectionsError():
            return "does not keep up: check its load (SLOWLOG, CPU)"
        case redis.TimeoutError() | TimeoutError():
            return f"did not answer for {client.TIMEOUT_S:g} s: check that it runs, and the network to it"
        case redis.ConnectionError() | OSError():
            return f"cannot be reached: start it, or fix its URL ({said})"
    return f"refuses a command: {said}"
