"""A connection to Redis that is kept for one kind of call. It costs half of what the pool costs for each call.

The pool checks, counts and retries at every call. Here that is done only if the connection was idle. Measurement:
docs/performance.md, "Several nodes".
"""

import threading
import time
from typing import Any

import redis
from redis.commands.core import Script

# A connection that was used within this time is taken to be alive. The server may have closed an idle one.
_FRESH_S = 0.05


class DedicatedConnection:
    """For one caller at a time; others block. After a failure the next call reconnects."""

    def __init__(self, client: "redis.Redis") -> None:
        self._pool: Any = client.connection_pool
        self._lock = threading.Lock()
        self._connection: Any = None
        self._used_at = 0.0

    def call(self, *command: Any) -> Any:
        """Return the answer to a command as Redis sends it.

        Raises RedisError or OSError; the command may have taken effect all the same.
        """
        with self._lock:
            connection = self._ready()
            try:
                connection.send_command(*command)
                answer = connection.read_response()
            except redis.ResponseError:
                raise  # an answer too: the connection is still good
            except BaseException:
                self._drop(connection)
                raise
            self._used_at = time.monotonic()
            return answer

    def run(self, script: Script, *arguments: Any) -> Any:
        """Run a script without keys. Raises as call() does."""
        try:
            return self.call("EVALSHA", script.sha, 0, *arguments)
        except redis.exceptions.NoScriptError:
            return self.call("EVAL", script.script, 0, *arguments)  # Redis knows it from now on

    def _ready(self) -> Any:
        if self._connection is not None and time.monotonic() - self._used_at > _FRESH_S:
            self._pool.release(self._connection)
            self._connection = None
        if self._connection is None:
            self._connection = self._pool.get_connection()  # which checks that it is alive
        return self._connection

    def _drop(self, connection: Any) -> None:
        self._connection = None
        connection.disconnect()
        self._pool.release(connection)
