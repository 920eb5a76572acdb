"""The file of settings (`.env`, or the one that ENV_FILE names)."""

import io
import os

from dotenv.parser import parse_stream

from socket_server.errors import ConfigError

DEFAULT = ".env"


def read(environ_file: str | None) -> dict[str, str]:
    """Return the variables in the file, without expanding anything in them.

    environ_file: the value of ENV_FILE. None: `.env`, if there is one; "": no file.
    Raises ConfigError if a named file is missing, or a file cannot be read or is malformed.
    """
    path = DEFAULT if environ_file is None else environ_file.strip()
    if not path or (environ_file is None and not os.path.lexists(path)):
        return {}
    try:
        with open(path, "rb") as file:
            content = file.read()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no valid path"
        origin = "" if environ_file is None else " (ENV_FILE)"
        raise ConfigError([f"the file {path}{origin} cannot be read ({reason}): name a readable file"]) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"the file {path} is not UTF-8 in line {line}: save it as UTF-8"]) from None
    found: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            line = binding.original.line
            raise ConfigError([f"the file {path} is malformed in line {line}: write NAME=value, one on each line"])
        if binding.key is not None and binding.value:
            found[binding.key] = binding.value
    return found
