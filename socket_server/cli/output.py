"""Lines of JSON for any terminal."""

import json
import sys
from typing import Any


def print_json(value: Any) -> None:
    """Print a value as one line of JSON: readable, or escaped if the terminal cannot show its characters.

    Half of a surrogate pair (a notification may contain one) has no encoding at all and is escaped.
    """
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeError:
        text = json.dumps(value)
    print(text, flush=True)
