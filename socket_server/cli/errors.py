"""The error of a command, and how errors of HTTP calls are named."""


class CommandError(Exception):
    """A command failed. The text says why, and what to do."""


def reason(error: Exception) -> str:
    """Return the short reason of a failed HTTP call, without its URL or headers."""
    response = getattr(error, "response", None)
    return f"status {response.status_code}" if response is not None else type(error).__name__
