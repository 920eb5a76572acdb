"""One connection to Redis, kept for one kind of call: half the cost of taking one from the pool for each.

What the pool does for every call (looking whether the connection is still there, counting, retrying) is done here only
where the connection has been idle: see docs/performance.md, "Several nodes".
"""

import threading
import time
from typing import Any

import redis
from redis.commands.core import Script

# A connection that was in use a moment ago is there; an idle one may have been closed by the other side.
_FRESH_S = 0.05


class DedicatedConnection:
    """For one caller at a time; the others wait. Reconnects by itself at the next call after a failure."""

    def __init__(self, client: "redis.Redis") -> None:
        self._pool: Any = client.connection_pool
        self._lock = threading.Lock()
        self._connection: Any = None
        self._used = 0.0

    def ask(self, *command: Any) -> Any:
        """Return Redis's answer as it comes. Raises RedisError, OSError; what was asked may have been done all the same."""
        with self._lock:
            connection = self._ready()
            try:
                connection.send_command(*command)
                answer = connection.read_response()
            except redis.ResponseError:
                raise  # an answer, too: the connection is as good as before
            except BaseException:
                self._drop(connection)
                raise
            self._used = time.monotonic()
            return answer

    def run(self, script: Script, *arguments: Any) -> Any:
        """Run a script without keys."""
        try:
            return self.ask("EVALSHA", script.sha, 0, *arguments)
        except redis.exceptions.NoScriptError:
            return self.ask("EVAL", script.script, 0, *arguments)  # and from now on it is known

    def _ready(self) -> Any:
        if self._connection is not None and time.monotonic() - self._used > _FRESH_S:
            self._pool.release(self._connection)
            self._connection = None
        if self._connection is None:
            self._connection = self._pool.get_connection()  # which looks whether it is still there
        return self._connection

    def _drop(self, connection: Any) -> None:
        self._connection = None
        connection.disconnect()
        self._pool.release(connection)
