"""The WSGI door: `gunicorn wsgi:app`, `flask run`."""

from socket_server.app import create_app

app = create_app()
