"""The graceful shutdown of a worker: refuse new sessions, close transports evenly, finish requests, close the parts."""

import time
from collections.abc import Sequence
from typing import Any

import gevent

from socket_server import log
from socket_server.transport.http.open_connections import OpenConnections
from socket_server.workers import graceful_listener
from socket_server.workers.http_server import HttpServer

_log = log.logger("Server")

SUCCESSION_S = 1.0  # over which connections are closed if a successor serves already; at most DRAIN_SECONDS

# How long requests in progress, and the first request of a new connection, may take after the transports are closed, if
# the drain has not left more time.
FINISH_S = 1.0


class Shutdown:
    """One worker's shutdown."""

    def __init__(self, worker: Any, servers: Sequence[HttpServer], connections: OpenConnections, succeeded: bool) -> None:
        """worker: a Worker. succeeded: other workers serve the listening sockets."""
        self._worker = worker
        self._servers = servers
        self._connections = connections
        self._succeeded = succeeded
        self._services = worker.wsgi.extensions["socket_server"]
        self._engineio_server = worker.wsgi.extensions["socketio"].server.eio

    def run(self) -> None:
        """Shut down. Without a successor, requests are served during the drain, and /health answers 503 "draining"."""
        drain_s = 0.0 if self._worker.hurry else self._services.settings.drain_s
        if self._succeeded:
            drain_s = min(drain_s, SUCCESSION_S)  # the successor delivers broadcasts: clients should reconnect to it soon
        ends = time.monotonic() + drain_s
        self._drain(drain_s)
        self._stop_listening()
        self._finish_requests(ends)
        self._services.close()
        self._services.metrics.publish()
        _log.info("stopped")

    def _drain(self, seconds: float) -> None:
        self._engineio_server.gate.draining = True
        _log.info("draining: connections=%d seconds=%g", len(self._engineio_server.sockets), seconds)
        # Answered broadcasts that are not kept (`ttl` 0) are sent before their connections are closed.
        self._services.broadcaster.wind_down()
        drain = gevent.spawn(self._engineio_server.drain, seconds)
        while not drain.ready():
            self._worker.notify()
            drain.join(0.5)
            if self._worker.hurry:  # a second signal
                break

    def _stop_listening(self) -> None:
        worker = self._worker
        for server in self._servers:
            if self._succeeded:
                server.close()
            else:
                shared = worker.inherited_listeners or graceful_listener.is_open_in(worker.ppid, server.socket)
                server.stop_listening(drop_new=not (worker.hurry or shared))

    def _finish_requests(self, ends: float) -> None:
        ends = max(ends, time.monotonic() + FINISH_S)
        gevent.sleep(0)  # the connections accepted last begin
        while self._connections.expecting(time.monotonic() - FINISH_S) and time.monotonic() < ends:
            self._worker.notify()
            gevent.sleep(0.02)
            if self._worker.hurry:
                ends = min(ends, time.monotonic() + FINISH_S)
