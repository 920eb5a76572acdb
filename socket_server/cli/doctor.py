"""`socket-server doctor`: check what a start needs."""

import argparse
import os
import sys

from socket_server import config, doctor

MADE_BY_MAKE = "# Made by make run for development"  # the first line of the .env that `make run` writes


def run(_: argparse.Namespace) -> int:
    """Print a line for each check. The status is 1 if something has to be fixed."""
    problems = 0
    for finding in doctor.examine(lambda: config.load(app_env=_mode_here())):
        print(f"{'ok ' if finding.good else 'FIX'}  {finding.text}")
        problems += not finding.good
    print("nothing to fix" if not problems else f"{problems} to fix", file=sys.stderr)
    return 1 if problems else 0


def _mode_here() -> str:
    """Return `development` in a folder that `make run` has set up, else "": APP_ENV decides, by default production."""
    if "ENV_FILE" in os.environ:
        return ""
    try:
        with open(".env", encoding="utf-8", errors="replace") as file:
            return "development" if file.readline().startswith(MADE_BY_MAKE) else ""
    except OSError:
        return ""
