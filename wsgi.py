"""The WSGI application of `gunicorn wsgi:app` and `flask run`."""

from socket_server.serve import application

app = application()
