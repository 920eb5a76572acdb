"""Lines of JSON for any terminal."""

import json
import sys
from typing import Any


def print_json(value: Any) -> None:
    """Print a value as one line of JSON. If the terminal cannot show a character, all but ASCII is escaped.

    A lone surrogate, which a notification may contain, has no encoding and is escaped on every terminal.
    """
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeError:
        text = json.dumps(value)
    print(text, flush=True)
