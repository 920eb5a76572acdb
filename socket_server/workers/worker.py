"""The gunicorn worker: gevent-websocket's, with an HTTP server of our own, and a graceful shutdown.

gunicorn's master imports this module before gevent patches the standard library in the worker. So nothing that opens
sockets of its own may be imported here (requests, the upstream servers).
"""

import gc
import sys
import time
from typing import Any

import gevent
from geventwebsocket.gunicorn.workers import GeventWebSocketWorker
from gunicorn.errors import AppImportError
from gunicorn.sock import ssl_context

from socket_server import log
from socket_server.errors import ConfigError, SocketServerError
from socket_server.runtime.descriptors import DescriptorBudget
from socket_server.runtime.greenlet_pool import BoundedGreenletPool
from socket_server.transport.http.context import HEAD_S, HttpContext
from socket_server.transport.http.handover.listener import HandoverListener
from socket_server.transport.http.handover.sender import HandoverSender
from socket_server.transport.http.open_connections import OpenConnections
from socket_server.transport.http.proxy_protocol import ProxyProtocol
from socket_server.workers import access_log, environ
from socket_server.workers.http_server import HttpServer
from socket_server.workers.master import SharedState
from socket_server.workers.shutdown import Shutdown

_log = log.logger("Server")

# How long a worker continues while its successor loads, beyond DRAIN_SECONDS; gunicorn kills it after 5 s beyond these.
_LOADING_S = 2.5

# How often a worker tells the master that it runs, looks whether it must stop, and measures how late a timer runs.
_PULSE_S = 0.1

# How often the inbox is asked for notifications that were stored and not delivered, and how often after an error.
_CATCH_UP_S = 0.25
_CATCH_UP_RETRY_S = 1.0


class Worker(GeventWebSocketWorker):
    """gunicorn's gevent worker. Its life: load the app, serve, continue while a successor loads, drain, end."""

    wsgi_handler = None  # HttpServer makes its own connections
    # Set in the master by the hook pre_fork (master.py).
    shared_state: SharedState
    inherited_listeners = False
    hurry = False  # stop without taking DRAIN_SECONDS

    def load_wsgi(self) -> None:
        try:
            super().load_wsgi()
        except ConfigError as error:
            raise AppImportError(str(error)) from None

    def handle_quit(self, sig: int, frame: Any) -> None:
        """SIGINT (Ctrl-C) and SIGQUIT: close all connections at once."""
        self.hurry = True
        self.alive = False

    def run(self) -> None:
        _tune_runtime()
        services = self.wsgi.extensions["socket_server"]
        engineio_server = self.wsgi.extensions["socketio"].server.eio
        successors = self.shared_state.reloads.of_new_worker()
        load = self.shared_state.load.of_worker(self.age)
        # SIGTTIN may start more workers at any time, if the settings allow more than one.
        several = bool(services.settings.redis_url)

        pool = BoundedGreenletPool(self.worker_connections, engineio_server.greenlet_pool)
        connections = OpenConnections(DescriptorBudget.of_this_process(), pool.size, pool.free_count)
        context = self._context(connections)
        gevent.spawn(connections.watch)
        servers = []
        for listener in self.sockets:
            listener.setblocking(1)
            base = environ.of_listener(self.cfg, listener.getsockname(), several, services.settings.base_path)
            servers.append(HttpServer(listener, pool, context, base, load if several else None))
            servers[-1].start()
        self._start_handovers(engineio_server, servers[0])
        successors.announce_serving()
        if services.feed is None:  # a feed reads everything that is stored
            gevent.spawn(self._catch_up)

        services.metrics.attach(self.shared_state.metrics, self.age)
        succeeded = False
        while self.alive:
            self.notify()
            load.beat()
            services.metrics.publish_if_due()
            slept_at = time.monotonic()
            gevent.sleep(_PULSE_S)
            services.metrics.metrics.event_loop_lag_seconds.observe(max(0.0, time.monotonic() - slept_at - _PULSE_S))
            succeeded = successors.exist()
        if succeeded:
            # Until the successor has loaded, new connections would wait for it.
            ends = time.monotonic() + services.settings.drain_s + _LOADING_S
            while successors.loading() and time.monotonic() < ends and not self.hurry:
                self.notify()
                gevent.sleep(0.05)
            for server in servers:
                server.retire()
        load.end()
        Shutdown(self, servers, connections, succeeded).run()

    def _context(self, connections: OpenConnections) -> HttpContext:
        services = self.wsgi.extensions["socket_server"]
        cfg = self.cfg
        return HttpContext(
            application=self.wsgi,
            engineio_server=self.wsgi.extensions["socketio"].server.eio,
            judge_head=services.judge_head,
            cors_headers=services.gate.origins.headers,
            connections=connections,
            handovers=HandoverSender(),
            tls=ssl_context(cfg) if cfg.is_ssl else None,
            proxy_protocol=(
                None if cfg.proxy_protocol == "off" else ProxyProtocol.of_gunicorn(cfg.proxy_protocol, cfg.proxy_allow_ips)
            ),
            log_access=access_log.writer(cfg, self.log),
            head_timeout_s=min(HEAD_S, services.settings.auth_timeout_s),
            idle_timeout_s=cfg.keepalive,
        )

    def _start_handovers(self, engineio_server: Any, server: HttpServer) -> None:
        """Receive connections whose sessions are here: from the other workers, and after a reload from the new ones."""
        if sys.platform != "linux":
            return  # serve.py allows no other workers then
        try:
            HandoverListener(engineio_server.tag, server, engineio_server.limits.max_message_bytes).start()
        except OSError as error:
            _log.error("other workers cannot hand over the requests of this worker's sessions (%s)", error)

    def _catch_up(self) -> None:
        """Deliver what another process has stored (the worker before or after a reload), and what was stored although the
        inbox could not confirm it."""
        broadcaster = self.wsgi.extensions["socket_server"].broadcaster
        while self.alive:
            wait_s = _CATCH_UP_S
            try:
                broadcaster.catch_up()
            except SocketServerError:
                wait_s = _CATCH_UP_RETRY_S  # /health reports the error
            gevent.sleep(wait_s)


def _tune_runtime() -> None:
    # The garbage collector need not look again at what exists now. Connections leave no cycles, and a collection that
    # visits tens of thousands of them would stall all clients.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    gevent.config.track_greenlet_tree = False  # else each new greenlet records the stack of the one that started it
