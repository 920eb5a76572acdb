"""gunicorn settings of the stock peer: the worker that Flask-SocketIO's documentation names."""

import os

bind = f"127.0.0.1:{os.environ['PORT']}"
worker_class = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"
workers = 1
worker_connections = 100_000
loglevel = "error"
control_socket_disable = True
