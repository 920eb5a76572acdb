"""The settings that commands of a client need."""

from socket_server import config
from socket_server.config import Settings


def client_settings() -> Settings:
    """Return the settings. A client needs no complete configuration of a production server."""
    return config.load(app_env="development")
