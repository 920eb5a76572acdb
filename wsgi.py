"""The WSGI door: `gunicorn wsgi:app`, `flask run`."""

from socket_server.serve import application

app = application()
