"""Log lines: the prefix first, one line for each event, no secret in them, in linear time."""

import io
import json
import logging
import re
import sys
import time
import timeit
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_server import log
from socket_server.log import JsonFormatter, Redactor, TextFormatter
from tests.servers import ROOT
from tests.unit.auth.jws import sign

TOKEN = sign({"id": "1"})
LINE = re.compile(r"\[[A-Za-z.]+\] \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [a-z]+ ")


def record(message: str, *arguments: Any, name: str = "socket_server.Server", exc_info: Any = None) -> logging.LogRecord:
    return logging.LogRecord(name, logging.INFO, "x.py", 1, message, arguments, exc_info)


def failure(text: str) -> Any:
    try:
        raise ValueError(text)
    except ValueError:
        return sys.exc_info()


# Prefixes


@pytest.mark.parametrize("prefix", ["Server", "Socket.IO", "SessionManager", "Broadcast"])
@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_line_carries_the_prefix_of_its_logger(prefix: str, formatter: logging.Formatter) -> None:
    line = formatter.format(record("hello %s", "ada", name=log.logger(prefix).name))
    if isinstance(formatter, JsonFormatter):
        found = json.loads(line)
        assert (found["prefix"], found["level"], found["message"]) == (f"[{prefix}]", "info", "hello ada")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["time"])
    else:
        assert LINE.match(line)
        assert line.startswith(f"[{prefix}] ")
        assert line.endswith(" info hello ada")


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("engineio.server", "Socket.IO"),
        ("socketio", "Socket.IO"),
        ("geventwebsocket.handler", "Socket.IO"),
        ("gunicorn.error", "Server"),
        ("root", "Server"),
        ("socket_server", "Server"),
        ("urllib3.connectionpool", "Server"),
    ],
)
def test_the_libraries_have_a_prefix_too(name: str, prefix: str) -> None:
    assert TextFormatter().format(record("x", name=name)).startswith(f"[{prefix}] ")


# Secrets


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f"token={TOKEN}",
        f'bad packet: 42["auth",{{"jwt":"{TOKEN}"}}]',
        f"Cookie: jwt={TOKEN}; id=1",
        f"jwt=bearer%20{TOKEN}",
        TOKEN.rpartition(".")[0],
        TOKEN.rpartition(".")[0] + ".",
        TOKEN[: TOKEN.index(".") + 5],
    ],
)
def test_a_token_is_hidden_anywhere_in_a_text(text: str) -> None:
    for formatter in (TextFormatter(), JsonFormatter()):
        for made in (record(text), record("got %s", text), record("x", exc_info=failure(text))):
            line = formatter.format(made)
            assert TOKEN[10:40] not in line
            assert TOKEN.split(".")[1][:8] not in line
            assert "[hidden]" in line


@pytest.mark.parametrize(
    "text",
    [
        "Bearer abc123",
        "bearer abc123",
        "BEARER   abc123",
        "bearer%20abc123",
        'Authorization: "Bearer abc123"',
        "Bearer abc123, x",
    ],
)
def test_what_follows_bearer_is_hidden(text: str) -> None:
    hidden = Redactor()(text)
    assert "abc123" not in hidden
    assert "[hidden]" in hidden
    assert hidden.lower().count("bearer") == 1


def test_the_configured_secrets_are_hidden_anywhere_in_a_text() -> None:
    redact = Redactor(["first-secret", "first-secret-and-more", "an.api+key(1)"])
    text = redact("a first-secret-and-more b first-secret c an.api+key(1) d anXapi+key(1)")
    assert text == "a [hidden] b [hidden] c [hidden] d anXapi+key(1)"


def test_the_id_of_a_session_in_a_url_is_hidden() -> None:
    text = Redactor()('GET /socket.io/?EIO=4&sid=abc-123&t=1 "/x?sid=abc-123"')
    assert "abc-123" not in text
    assert "EIO=4" in text
    assert "t=1" in text


def test_ordinary_words_are_kept() -> None:
    for text in ("added sid=abc user=123 connections=2", "bearer", "the bearer", "eye.catching eyJ", "id=1 x.y.z"):
        assert Redactor(["", "abc"])(text) == text, "secrets of under four characters would hide everything"


def test_a_secret_in_a_traceback_is_hidden() -> None:
    line = TextFormatter(["my-api-key"]).format(record("failed", exc_info=failure("bad key my-api-key")))
    assert "my-api-key" not in line
    assert "Traceback" in line
    assert "ValueError: bad key [hidden]" in line


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_secret_is_hidden_in_any_text(before: str, after: str) -> None:
    for formatter in (TextFormatter(["the-api-key-of-the-back-end"]), JsonFormatter(["the-api-key-of-the-back-end"])):
        line = formatter.format(record("%s", f"{before}the-api-key-of-the-back-end{after}{TOKEN}"))
        assert "the-api-key-of-the-back-end" not in line
        assert TOKEN[10:40] not in line


# In linear time


HOSTILE = {
    "token starts": "eyA",
    "token starts with dots": "eyAAAAAA.",
    "dots": ".",
    "a word": "a",
    "bearer": "bearer ",
    "bearer and spaces": "bearer" + " " * 50,
    "encoded spaces": "bearer%20%20",
    "sid": "?sid=",
    "colors": "\x1b[1",
    "secret starts": "the-api-key-of-the-back-en",
    "hyphens": "-",
    "line ends": "\n\u2028\x85",
    "emoji": "😀",
    "half a surrogate pair": "\ud800",
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_megabyte_of_hostile_text_is_redacted_within_50_ms(hostile: str) -> None:
    text = hostile * (1_000_000 // len(hostile))
    secrets = ["the-api-key-of-the-back-end", "another-secret-of-this-server"]
    for formatter in (TextFormatter(secrets), JsonFormatter(secrets)):
        made = record("%s", text, exc_info=failure(text[:65_536]))  # the largest message of a client
        took = fastest_s(lambda made=made, formatter=formatter: formatter.format(made))  # type: ignore[misc]
        assert took < 0.05, f"{took * 1_000:.1f} ms"
    took = fastest_s(lambda: Redactor(secrets)(text[:100_000]))
    assert took < 0.05, f"{took * 1_000:.1f} ms for a tenth of it without a bound"


def fastest_s(call: Callable[[], object]) -> float:
    """Return the processor time of a call in seconds: the least of three, so that other load does not count."""
    return min(timeit.repeat(call, timer=time.thread_time, number=1, repeat=3))


@given(st.lists(st.sampled_from([*HOSTILE.values(), TOKEN, "e", "y", "w", ".", " ", "é"]), min_size=1, max_size=6))
def test_any_mixture_takes_linear_time(parts: list[str]) -> None:
    text = "".join(parts)
    text = text * (20_000 // len(text) + 1)
    redact = Redactor(["the-api-key-of-the-back-end"])
    assert fastest_s(lambda: redact(text)) < 0.02


def test_a_long_text_is_cut_with_a_mark() -> None:
    for formatter in (TextFormatter(), JsonFormatter()):
        line = formatter.format(record("%s", "x" * (log.MAX_TEXT_CHARS + 5)))
        assert len(line) < log.MAX_TEXT_CHARS + 200
        assert "… (5 more characters)" in line
        assert "more characters" not in formatter.format(record("%s", "x" * log.MAX_TEXT_CHARS))


def test_a_secret_at_the_cut_is_hidden() -> None:
    secret = "the-api-key-of-the-back-end"
    redactor = Redactor([secret])
    for at in range(60, 140):
        for before in ("x" * at, f"{secret} " * 3 + "x" * at):
            cut = redactor.bounded(f"{before}{secret}{'y' * 200}", 100)
            assert not [start for start in range(len(secret) - 4) if secret[start : start + 5] in cut]


# One line


CONTROLS = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u2028\u2029\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ud800\udfff",
]


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: f"U+{ord(control):04X}")
@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_no_control_character_reaches_the_log(control: str, formatter: logging.Formatter) -> None:
    for made in (
        record("from %s", f"a{control}b"),
        record("x", exc_info=failure(f"a{control}b")),
    ):
        line = formatter.format(made)
        assert control not in line.replace("\n    ", "")
        assert line.encode()


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\n\n"])
def test_a_client_cannot_forge_a_line(end: str) -> None:
    forged = f"x{end}[Server] 2024-01-01T00:00:00.000Z info all is well"
    for formatter in (TextFormatter(), JsonFormatter()):
        line = formatter.format(record("from %s", forged))
        assert "\n" not in line
        assert "\r" not in line
        assert "all is well" in line


@pytest.mark.parametrize("where", ["message", "exception"])
def test_a_client_cannot_forge_a_line_beside_a_traceback(where: str) -> None:
    forged = "x\n[Server] 2024-01-01T00:00:00.000Z info all is well"
    made = record(
        "from %s", forged if where == "message" else "x", exc_info=failure(forged if where == "exception" else "x")
    )
    first, *others = TextFormatter().format(made).splitlines()
    assert LINE.match(first)
    assert others, "a traceback has lines of its own"
    assert not any(LINE.match(other) for other in others)
    assert "\n" not in JsonFormatter().format(made)


@given(st.text())
def test_any_text_is_one_line_of_json(text: str) -> None:
    line = JsonFormatter().format(record("%s", text))
    assert "\n" not in line
    # Colors and surrounding white space are removed; nothing else is lost.
    assert json.loads(line)["message"] == Redactor()(re.sub(r"\x1b\[[\d;]*m", "", text).strip())
    assert line.isprintable() or not set(line) & set(CONTROLS)


@given(st.text())
def test_any_text_is_one_line(text: str) -> None:
    line = TextFormatter().format(record("%s", text))
    assert not set(line) & set(CONTROLS)
    assert LINE.match(line)
    assert line.encode()


def test_every_code_point_that_controls_a_line_is_escaped() -> None:
    directions = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    controls = {
        each
        for each in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(each) in {"Cc", "Zl", "Zp", "Cs"} or unicodedata.bidirectional(each) in directions
    }
    marks = {"\u061c", "\u200e", "\u200f"}  # they have a direction, and no width
    assert set(log._CONTROLS) == controls | marks


def test_json_is_readable_and_not_escaped() -> None:
    assert "שלום" in JsonFormatter().format(record("שלום"))


# The configuration


@pytest.fixture
def _restored() -> Any:
    """Put logging back as it was."""
    names = [None, *log.dict_config("info", "text")["loggers"]]
    before = [
        (logging.getLogger(name), logging.getLogger(name).handlers[:], logging.getLogger(name).level) for name in names
    ]
    propagated = {logger: logger.propagate for logger, _, _ in before}
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagated[logger]


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_configuration_takes_effect(log_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log.configure("info", log_format, ["my-api-key"])
    log.logger("Broadcast").info("key my-api-key")
    log.logger("Broadcast").debug("too quiet")
    logging.getLogger("engineio.server").info("a packet with a payload")
    logging.getLogger("engineio.server").warning("a warning")
    logging.getLogger("gunicorn.error").info("listening")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    if log_format == "json":
        assert [json.loads(line)["message"] for line in lines] == ["key [hidden]", "a warning", "listening"]
    else:
        assert [line.split(" ")[0] for line in lines] == ["[Broadcast]", "[Socket.IO]", "[Server]"]


@pytest.mark.parametrize(
    ("level", "gunicorn"), [("debug", "INFO"), ("info", "INFO"), ("warning", "WARNING"), ("error", "ERROR")]
)
def test_the_libraries_log_at_the_level_or_less(level: str, gunicorn: str) -> None:
    loggers = log.dict_config(level, "text")["loggers"]
    assert loggers["socket_server"]["level"] == level.upper()
    assert loggers["gunicorn.error"]["level"] == gunicorn
    assert loggers["engineio"]["level"] == loggers["socketio"]["level"] == "WARNING"


def test_every_logger_has_a_documented_prefix() -> None:
    found = set()
    for path in (ROOT / "socket_server").rglob("*.py"):
        found |= set(re.findall(r"log\.logger\(\"([^\"]+)\"\)", path.read_text(encoding="utf-8")))
    assert found == {"Broadcast", "Server", "SessionManager", "Socket.IO"}
