"""Real Redis servers for the tests."""

import signal
import subprocess
from pathlib import Path

import redis

from tests.servers import free_port, wait_for

# Every write is on the disk before it is answered.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class RunningRedis:
    """A redis-server of this test run, which keeps nothing on its disk unless the options say so; or a Sentinel.

    options: a Sentinel's configuration file comes first.
    """

    def __init__(self, program: str, directory: Path, *options: str, password: str = "") -> None:
        self.port = free_port()
        self._log = directory / f"redis-{self.port}.log"
        place = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory)]
        if "--sentinel" in options:
            self._command = [program, *options, *place]
        else:
            self._command = [program, *place, "--save", "", "--appendonly", "no", *options]
        if password:
            self._command += ["--requirepass", password]
        self.url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}/0"
        self.client = redis.Redis.from_url(self.url)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it (again), and return once it answers."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_for(self._answers, what="an answer of Redis")

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """Let it stand still: it takes connections and commands, and does not answer."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self._log.read_text()
        try:
            return bool(self.client.ping())
        except (redis.ConnectionError, redis.exceptions.BusyLoadingError):
            return False
