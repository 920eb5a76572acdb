"""gunicorn settings of flask_stock.py: the worker class that Flask-SocketIO's documentation recommends."""

import os

bind = f"127.0.0.1:{os.environ['PORT']}"
worker_class = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"
workers = 1
worker_connections = 100_000
loglevel = "error"
control_socket_disable = True
