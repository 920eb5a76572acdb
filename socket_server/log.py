"""Logging: one line an event, text or JSON, on standard error; its prefix first, no secret in it.

A module takes `log.logger("Broadcast")` once and logs through it; the prefix is the contract's. Records of the
libraries below (gunicorn, Engine.IO) come out under `[Server]` and `[Socket.IO]`.
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

# A JWS in compact form (RFC 7515 section 7.1): its header is base64url of a JSON object, '{"' (eyJ) or with a space or a
# line break first (eyA, ewo …). Most tokens that reach a log do so inside a client's own malformed input, so a cut-off one
# (header and a dot) counts too.
_TOKEN = re.compile(r"e[wy][A-Za-z0-9][\w-]{5,}(?:\.[\w-]*)+")
# An Engine.IO session's id in a logged URL: whoever knows it can speak for a polling client.
_SID = re.compile(r"([?&]sid=)[^&\s\"']+")
_BEARER = re.compile(r"(?i)(bearer(?:\s|%20)+)[^\s\"',;]+")
_HIDDEN = "[hidden]"

_ANSI = re.compile(r"\x1b\[[\d;]*m")  # the colours of the development server's lines


def logger(prefix: str) -> logging.Logger:
    """Return the logger whose lines start with `[prefix]`: Server, Socket.IO, SessionManager or Broadcast."""
    return logging.getLogger(f"{ROOT}.{prefix.replace('.', '-')}")


class Redactor:
    """Replaces what must never be logged: anything shaped like a token, and the configured secrets themselves."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        # Longest first, or a secret that starts another would leave the other's end in sight.
        known = sorted({secret for secret in secrets if len(secret) >= 4}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        text = _SID.sub(rf"\1{_HIDDEN}", _BEARER.sub(rf"\1{_HIDDEN}", _TOKEN.sub(_HIDDEN, text)))
        return self._known.sub(_HIDDEN, text) if self._known else text


class _Formatter(logging.Formatter):
    """The one place where a record becomes a line, and so the one place that redacts."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        super().__init__()
        self.redact = Redactor(secrets)

    def parts(self, record: logging.LogRecord) -> tuple[str, str, str, str, str]:
        """Return (prefix, time, level, text, traceback) of a record, redacted; "" for no traceback."""
        root, _, name = record.name.partition(".")
        prefix = name.replace("-", ".") if root == ROOT and name else _PREFIX_OF_LIBRARY.get(root, "Server")
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        text = _ANSI.sub("", record.getMessage()).strip()
        traceback = self.redact(self.formatException(record.exc_info)) if record.exc_info else ""
        return prefix, time, record.levelname.lower(), self.redact(text), traceback


class TextFormatter(_Formatter):
    """`[Prefix] time level text`."""

    def format(self, record: logging.LogRecord) -> str:
        prefix, time, level, text, traceback = self.parts(record)
        # A client chooses some of what is logged: it must not be able to forge a second line (CWE-117).
        line = f"[{prefix}] {time} {level} {text}".replace("\r", "\\r").replace("\n", "\\n")
        return "\n    ".join([line, *traceback.splitlines()])


class JsonFormatter(_Formatter):
    """One JSON object a line: prefix, time, level, message, and the traceback of an error."""

    def format(self, record: logging.LogRecord) -> str:
        prefix, time, level, text, traceback = self.parts(record)
        fields = {"prefix": f"[{prefix}]", "time": time, "level": level, "message": text}
        if traceback:
            fields["traceback"] = traceback
        return json.dumps(fields, ensure_ascii=False)


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
            # gunicorn's own start and stop lines; its debug level prints its configuration, which helps nobody here.
            "gunicorn.error": {"handlers": ["stderr"], "level": _at_least("INFO", level), "propagate": False},
            "gunicorn.access": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
            # The upstream servers log every packet with its payload at info: tokens travel in packets.
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
