"""The gunicorn worker: gevent's WSGI server with gevent-websocket's handler, which hands WebSockets over to the engine and
stops gracefully.

gunicorn's master imports this module before gevent patches the standard library in the worker, so it imports nothing that
opens sockets of its own (requests, the upstream servers).
"""

import gc
import sys
import time
from typing import Any

import gevent
from geventwebsocket.gunicorn.workers import GeventWebSocketWorker
from gunicorn.errors import AppImportError
from gunicorn.http.wsgi import base_environ
from gunicorn.sock import ssl_context
from gunicorn.workers.ggevent import VERSION

from socket_server import log
from socket_server.errors import ConfigError, SocketServerError
from socket_server.metrics.shared import SharedMetrics
from socket_server.runtime.greenlet_pool import BoundedGreenletPool
from socket_server.transport.http import handover
from socket_server.transport.http.connection import Handler
from socket_server.workers import graceful_listener
from socket_server.workers.http_server import FINISH_S, HttpServer
from socket_server.workers.load import WorkerLoad
from socket_server.workers.reload import Reload

_log = log.logger("Server")

# Over how long connections move to a worker that has taken over.
SUCCESSION_S = 1.0

# How long a worker goes on as ever while its successor loads, beyond DRAIN_SECONDS; gunicorn waits 5 s more than those.
LOADING_S = 2.5

# How often a worker looks whether it must stop, and measures how late the event loop runs a timer.
_PULSE_S = 0.1

# How often it is looked whether something is stored that has not gone out; less often while the inbox is down.
_CATCH_UP_EVERY_S = 0.25
_CATCH_UP_AGAIN_S = 1.0


class Worker(GeventWebSocketWorker):
    """gunicorn's gevent worker with our handler, and a stop that drains."""

    wsgi_handler = Handler
    lent = False  # its listening sockets outlive the server (graceful_listener.lend)
    shared_metrics: SharedMetrics  # set in the master, before it forks
    _hurry = False  # stop without taking DRAIN_SECONDS

    def load_wsgi(self) -> None:
        try:
            super().load_wsgi()
        except ConfigError as error:
            raise AppImportError(str(error)) from None

    def handle_quit(self, sig: int, frame: Any) -> None:
        # SIGINT (Ctrl-C) and SIGQUIT: say goodbye to everyone at once.
        self._hurry = True
        self.alive = False

    def run(self) -> None:
        reload = Reload()
        self._worker_load = WorkerLoad(self.age)
        # What is here now stays: the collector need not look at it again. Connections leave no cycles behind, and a
        # collection that walks tens of thousands of them stalls everybody.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 50, 100)
        gevent.config.track_greenlet_tree = False  # or each new greenlet would note who started it, and from which lines
        engineio_server = self.wsgi.extensions["socketio"].server.eio
        servers = [self._start(listener) for listener in self.sockets]
        self._open_door(engineio_server, servers[0])
        reload.serve()
        if self.wsgi.extensions["socket_server"].feed is None:  # which reads all that is stored
            gevent.spawn(self._catch_up)
        collection = self.wsgi.extensions["socket_server"].metrics
        collection.attach(self.shared_metrics, self.age)
        beat = 0.0
        succeeded = False
        while self.alive:
            if time.monotonic() - beat >= 1.0:
                self.notify()
                beat = time.monotonic()
            self._worker_load.beat()
            collection.publish_if_due()
            slept_at = time.monotonic()
            gevent.sleep(_PULSE_S)
            collection.metrics.event_loop_lag_seconds.observe(max(0.0, time.monotonic() - slept_at - _PULSE_S))
            succeeded = reload.begun()
        if succeeded:
            self._wait_while_loading(reload)
            for server in servers:
                server.leave_accepting()
        self._worker_load.end()
        self._stop(servers, engineio_server, succeeded)

    def _wait_while_loading(self, reload: Reload) -> None:
        """Go on as ever until the successor has loaded: whoever came meanwhile would stand at a closed door for so long."""
        ends = time.monotonic() + self.wsgi.extensions["socket_server"].settings.drain_s + LOADING_S
        while reload.loading() and time.monotonic() < ends and not self._hurry:
            self.notify()
            gevent.sleep(0.05)

    def _catch_up(self) -> None:
        """Deliver what another process stores (the worker before a reload, or the one after it), and what was stored though
        the inbox could not say so."""
        broadcaster = self.wsgi.extensions["socket_server"].broadcaster
        while self.alive:
            wait_s = _CATCH_UP_EVERY_S
            try:
                broadcaster.catch_up()
            except SocketServerError:
                wait_s = _CATCH_UP_AGAIN_S  # /health says it
            gevent.sleep(wait_s)

    def _start(self, listener: Any) -> HttpServer:
        listener.setblocking(1)
        # Where there may be more workers than one, SIGTTIN may make them so at any time.
        several = bool(self.wsgi.extensions["socket_server"].settings.redis_url)
        environ = base_environ(self.cfg)
        # SERVER_NAME is set here, or gevent would look up the host's name in the DNS while it starts.
        environ |= {
            "wsgi.multiprocess": several,  # gevent then accepts one connection at a time
            "wsgi.multithread": True,
            "SERVER_SOFTWARE": VERSION,
            "SERVER_NAME": "localhost",
        }
        server = HttpServer(
            listener,
            app=self.wsgi,
            pool=BoundedGreenletPool(self.worker_connections, self.wsgi.extensions["socketio"].server.eio.greenlet_pool),
            environ=environ,
            tls=ssl_context(self.cfg) if self.cfg.is_ssl else None,
            access=self.log if self.cfg.accesslog else None,
            worker_load=self._worker_load if several else None,
        )
        server.start()
        return server

    def _open_door(self, engineio_server: Any, server: HttpServer) -> None:
        """Take connections whose sessions are here from the other workers: those on the same port, and after a reload the
        new ones."""
        if sys.platform != "linux":
            return  # serve.py sees to it that there are no others
        try:
            handover.HandoverListener(engineio_server.tag, server, engineio_server.limits.max_message_bytes).start()
        except OSError as error:
            _log.error("other workers cannot hand over the requests of this one's sessions (%s)", error)

    def _stop(self, servers: list[HttpServer], engineio_server: Any, succeeded: bool) -> None:
        """Let nobody new in, close transports evenly over DRAIN_SECONDS, and let requests in flight finish.

        Unless there is a successor, the listening sockets are served meanwhile: /health answers 503 "draining".
        """
        services = self.wsgi.extensions["socket_server"]
        drain_s = 0.0 if self._hurry else services.settings.drain_s
        if succeeded:
            # Broadcasts go to the successor from now on: clients had better be there soon.
            drain_s = min(drain_s, SUCCESSION_S)
        engineio_server.gate.draining = True
        _log.info("draining: connections=%d seconds=%g", len(engineio_server.sockets), drain_s)
        services.broadcaster.wind_down()  # what is answered and not kept (`ttl` 0) is out before its connections end
        ends = time.monotonic() + drain_s
        drain = gevent.spawn(engineio_server.drain, drain_s)
        while not drain.ready():
            self.notify()
            drain.join(0.5)
            if self._hurry:  # a second, impatient signal
                break
        for server in servers:
            if succeeded:
                server.close()
            else:
                server.stop_listening(
                    for_good=not (self._hurry or self.lent or graceful_listener.held_by(self.ppid, server.socket))
                )
        ends = max(ends, time.monotonic() + FINISH_S)
        gevent.sleep(0)  # who was the last to come in begins
        while any(server.expecting() for server in servers) and time.monotonic() < ends:
            self.notify()
            gevent.sleep(0.02)
            if self._hurry:
                ends = min(ends, time.monotonic() + FINISH_S)
        for server in servers:
            server.stop(timeout=0.1)
        services.close()
        services.metrics.publish()
        _log.info("stopped")
