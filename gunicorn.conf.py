"""gunicorn's settings, computed in socket_server/serve.py."""

from socket_server import serve

globals().update(serve.gunicorn_settings())
