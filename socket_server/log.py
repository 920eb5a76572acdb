"""Logging to standard error: one line for each event, as text or JSON, with its prefix first and without secrets.

A module takes `log.logger("Broadcast")` once and logs through it. The prefixes are listed in docs/operations.md. Records of
the libraries (gunicorn, Engine.IO) get the prefixes `[Server]` and `[Socket.IO]`.
"""

import json
import logging
import logging.config
import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

ROOT = "socket_server"
_PREFIX_OF_LIBRARY = {"engineio": "Socket.IO", "socketio": "Socket.IO", "geventwebsocket": "Socket.IO"}

# A longer text is cut. Clients choose part of what is logged, and each pattern below reads all of it.
MAX_TEXT_CHARS = 8_192
MAX_TRACEBACK_CHARS = 16_384

_HIDDEN = "[hidden]"

# Words joined by dots. A match starts at the start of a word only, and its quantifiers are possessive, so that the search
# takes linear time on any text.
_DOTTED = re.compile(r"(?<![\w-])[\w-]++(?:\.[\w-]*+)+")
# The start of a JSON Web Token in it (RFC 7515, section 7.1): base64url of `{"`, or of `{` and white space. A token that is
# cut off after its header and a dot counts too, since most tokens in a log are part of a client's malformed input.
_TOKEN_START = re.compile(r"e[wy][A-Za-z0-9][\w-]{5}")
# The Engine.IO session id in a logged URL authorizes requests of a polling client.
_SID = re.compile(r"([?&]sid=)[^&\s\"']+")
_BEARER = re.compile(r"(?i)(bearer(?:\s|%20)+)[^\s\"',;]+")

_ANSI = re.compile(r"\x1b\[[\d;]*m")  # the colors of the development server's lines


def logger(prefix: str) -> logging.Logger:
    """Return the logger whose lines start with `[prefix]`: Server, Socket.IO, SessionManager or Broadcast."""
    return logging.getLogger(f"{ROOT}.{prefix.replace('.', '-')}")


class Redactor:
    """Replaces tokens, session ids and the configured secrets in a text, in linear time."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        # Longest first: of two secrets with the same start, the shorter would leave the end of the longer visible.
        known = sorted({secret for secret in secrets if len(secret) >= 4}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None
        self._longest = max(map(len, known), default=0)

    def __call__(self, text: str) -> str:
        text = _SID.sub(rf"\1{_HIDDEN}", _BEARER.sub(rf"\1{_HIDDEN}", _DOTTED.sub(_without_token, text)))
        return self._known.sub(_HIDDEN, text) if self._known else text

    def bounded(self, text: str, most: int) -> str:
        """Return a text without terminal colors, redacted, and cut to about `most` characters."""
        if len(text) <= most:
            return self(_ANSI.sub("", text))
        # A secret may be cut in two at the end of the part that is read. That half is among the last characters, which are
        # dropped after the redaction.
        tail = self._longest + len(_HIDDEN)
        kept = self(_ANSI.sub("", text[: most + tail]))[:-tail]
        return f"{kept}… ({len(text) - most} more characters)"


def _without_token(dotted: re.Match[str]) -> str:
    text = dotted[0]
    start = _TOKEN_START.search(text)
    if start is None or text.find(".", start.start()) == -1:
        return text
    return text[: start.start()] + _HIDDEN


# Code points that can end or color a line, reorder it on a screen, or not be encoded at all: control characters (Cc),
# line and paragraph separators (Zl, Zp), surrogates (Cs), and bidirectional formatting (Unicode Standard Annex 9).
_CONTROL_RANGES = (
    *((0x00, 0x1F), (0x7F, 0x9F), (0x061C, 0x061C), (0x200E, 0x200F), (0x2028, 0x2029)),
    *((0x202A, 0x202E), (0x2066, 0x2069), (0xD800, 0xDFFF)),
)
_CONTROLS = [chr(point) for first, last in _CONTROL_RANGES for point in range(first, last + 1)]
_TEXT_ESCAPES = str.maketrans({each: ascii(each)[1:-1] for each in _CONTROLS})
_JSON_ESCAPES = str.maketrans({each: f"\\u{ord(each):04x}" for each in _CONTROLS})


def _escape(text: str, escapes: dict[int, str]) -> str:
    return text if text.isprintable() else text.translate(escapes)


class _Formatter(logging.Formatter):
    """Turns a record into a line. Every line passes here, so this is the one place that redacts."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        super().__init__()
        self._redactor = Redactor(secrets)

    def parts(self, record: logging.LogRecord) -> tuple[str, str, str, str, str]:
        """Return (prefix, time, level, text, traceback) of a record, redacted; the traceback is "" if there is none."""
        root, _, name = record.name.partition(".")
        prefix = name.replace("-", ".") if root == ROOT and name else _PREFIX_OF_LIBRARY.get(root, "Server")
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        text = self._redactor.bounded(record.getMessage().strip(), MAX_TEXT_CHARS).strip()
        traceback = ""
        if record.exc_info:
            traceback = self._redactor.bounded(self.formatException(record.exc_info), MAX_TRACEBACK_CHARS)
        return prefix, time, record.levelname.lower(), text, traceback


class TextFormatter(_Formatter):
    """`[Prefix] time level text`. A traceback follows on indented lines."""

    def format(self, record: logging.LogRecord) -> str:
        prefix, time, level, text, traceback = self.parts(record)
        # A client chooses part of the text and must not be able to forge a second line (CWE-117).
        lines = [f"[{prefix}] {time} {level} {text}", *traceback.splitlines()]
        return "\n    ".join([_escape(line, _TEXT_ESCAPES) for line in lines])


class JsonFormatter(_Formatter):
    """One JSON object on each line: prefix, time, level, message, and the traceback of an error."""

    def format(self, record: logging.LogRecord) -> str:
        prefix, time, level, text, traceback = self.parts(record)
        fields = {"prefix": f"[{prefix}]", "time": time, "level": level, "message": text}
        if traceback:
            fields["traceback"] = traceback
        return _escape(json.dumps(fields, ensure_ascii=False), _JSON_ESCAPES)


def dict_config(level: str, log_format: str, secrets: Collection[str] = ()) -> dict[str, Any]:
    """Return the logging.config.dictConfig of this server; gunicorn takes it as its `logconfig_dict`."""
    formatter = JsonFormatter if log_format == "json" else TextFormatter
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": formatter, "secrets": tuple(secrets)}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            ROOT: {"handlers": ["stderr"], "level": level.upper(), "propagate": False},
            # gunicorn's start and stop lines. Its debug level prints its whole configuration.
            "gunicorn.error": {"handlers": ["stderr"], "level": _at_least("INFO", level), "propagate": False},
            "gunicorn.access": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
            # The upstream servers log every packet with its payload at info, and packets carry tokens.
            "engineio": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
            "socketio": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
            "geventwebsocket": {"handlers": ["stderr"], "level": "ERROR", "propagate": False},
        },
    }


def _at_least(floor: str, level: str) -> str:
    levels = logging.getLevelNamesMapping()
    return max(floor, level.upper(), key=levels.__getitem__)


def configure(level: str, log_format: str, secrets: Collection[str] = ()) -> None:
    """Set up logging for this process."""
    logging.config.dictConfig(dict_config(level, log_format, secrets))
