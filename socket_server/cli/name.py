"""The name by which a shell finds this installation's `socket-server`, for texts that tell the reader to run it."""

import os
import shlex
import shutil
import sys
from pathlib import Path


def command() -> str:
    """Return `socket-server` if that is this installation on the PATH, else its quoted path from the working directory."""
    script = Path(sys.executable).with_name("socket-server")
    on_path = shutil.which("socket-server")
    if not script.exists():
        return "socket-server" if on_path else f"{shlex.quote(sys.executable)} -m socket_server.cli"
    if on_path and os.path.samefile(on_path, script):
        return "socket-server"
    try:
        return shlex.quote(str(script.relative_to(Path.cwd())))
    except (OSError, ValueError):  # not below the working directory
        return shlex.quote(str(script))
