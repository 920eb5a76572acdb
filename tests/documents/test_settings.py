"""docs/configuration.md and .env.example have every setting, with the default and the range that the code has."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from socket_server.config import env_file, from_environ
from socket_server.errors import ConfigError
from tests.documents.markdown import Block, Row, code_words, page
from tests.integration.certificates import self_signed
from tests.servers import ROOT

SECRETS = {"JWT_SECRET": "a-secret-of-enough-bytes-for-every-hash-0123456789", "API_KEYS": "key-0123456789abcdef"}
NOT_IN_THE_FILE = {"ENV_FILE", "STATE_DIRECTORY"}  # from the environment only

ROWS = [row for row in page("docs/configuration.md").rows() if row.header[0] == "setting"]
NAMES = [name for row in ROWS for name in code_words(row.cells[0])]
EXAMPLES = [block for block in page("docs/configuration.md").blocks if block.language == "ini"]


class Recorder(dict[str, str]):
    """An environment that notes which variables are asked for."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


def problems(values: Mapping[str, str]) -> list[str]:
    try:
        from_environ({**SECRETS, **values})
    except ConfigError as error:
        return list(error.problems)
    return []


def test_every_setting_is_documented_once_and_read() -> None:
    recorder = Recorder(SECRETS)
    from_environ(recorder)
    read = recorder.asked - {"FLASK_RUN_FROM_CLI"}
    assert len(NAMES) == len(set(NAMES))
    assert set(NAMES) == read | {"ENV_FILE"}


def test_the_template_has_every_setting() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE)) == set(NAMES) - NOT_IN_THE_FILE


def test_the_template_holds_the_defaults() -> None:
    values = {name: value for name, value in env_file.read(str(ROOT / ".env.example")).items() if value}
    assert from_environ({**SECRETS, **values}) == from_environ(SECRETS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.cells[0])
def test_the_documented_default_is_the_default(row: Row) -> None:
    words = code_words(row.cells[1])
    if not words or not row.cells[1].startswith("`") or "`JWT_USER_CLAIM`" in row.cells[0]:
        assert row.cells[1].startswith(("none", "all that", "the ")), row
        return
    for name in code_words(row.cells[0]):
        if name != "ENV_FILE":
            assert from_environ({**SECRETS, name: words[0]}) == from_environ(SECRETS)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if re.match(r"[\d.]+ to ", row.cells[2])], ids=lambda row: row.cells[0]
)
def test_the_documented_range_is_accepted_and_no_more(row: Row) -> None:
    low, high = re.findall(r"[\d.]+", row.cells[2])[:2]
    (name,) = code_words(row.cells[0])
    for value in (low, high):
        assert not [problem for problem in problems({name: value}) if "number from" in problem]
    for value in (str(float(low) - 0.05), str(int(high) + 1), "many"):
        assert any(problem.startswith(name) for problem in problems({name: value})), value


CHOICES = [row for row in ROWS if re.fullmatch(r"`[a-z0-9]+`(, `[a-z0-9]+`)+", row.cells[2])]


@pytest.mark.parametrize("row", CHOICES, ids=lambda row: row.cells[0])
def test_the_documented_choices_are_accepted_and_no_others(row: Row) -> None:
    (name,) = code_words(row.cells[0])
    for value in code_words(row.cells[2]):
        assert not problems({name: value})
    assert problems({name: "nonsense"})


@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_the_examples_are_accepted(block: Block, tmp_path: Path) -> None:
    values = dict(line.split("=", 1) for line in block.text.splitlines())
    if "SSL_CERT" in values:
        values["SSL_CERT"], values["SSL_KEY"] = map(str, self_signed(tmp_path))
    assert set(values) <= set(NAMES)
    assert not problems(values)
    assert from_environ({**SECRETS, **values}) != from_environ(SECRETS)


def test_every_group_has_an_example() -> None:
    grouped = {row.section for row in ROWS} - {"Where settings come from", "Mode"}
    assert grouped == {block.section for block in EXAMPLES}
