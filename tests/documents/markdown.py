"""Reads the parts of a Markdown page that the tests check: headings, links, tables and fenced code blocks."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.servers import ROOT

_FENCE = re.compile(r"^( *)```(\w*)$")
_MARKER = re.compile(r"<!-- not run: (.+) -->")
_HEADING = re.compile(r"^(#{1,6}) (.+)$")
_LINK = re.compile(r"\]\(([^()\s]+(?:\([^()]*\))?)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced code block.

    line: of its opening fence. language: "" if the fence names none. not_run: the reason in the marker comment before it,
    "" without one. section: the heading above it. follows: it stands directly below another block.
    """

    page: str
    line: int
    language: str
    text: str
    not_run: str
    section: str
    follows: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table, its cells without the white space around them."""

    line: int
    section: str
    header: tuple[str, ...]
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A page by its path in the repository; `prose` has its code blocks replaced by empty lines."""

    name: str
    prose: tuple[str, ...]
    blocks: tuple[Block, ...]

    @property
    def path(self) -> Path:
        return ROOT / self.name

    def anchors(self) -> frozenset[str]:
        """Return the anchors of the headings, as GitHub makes them."""
        seen: Counter[str] = Counter()
        found = set()
        for line in self.prose:
            if match := _HEADING.match(line):
                slug = re.sub(r"[^\w\- ]", "", match[2].lower()).replace(" ", "-")
                found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
                seen[slug] += 1
        return frozenset(found)

    def links(self) -> Iterator[tuple[int, str]]:
        """Yield the line number and the target of each link."""
        for number, line in enumerate(self.prose, 1):
            for match in _LINK.finditer(re.sub(r"`[^`]*`", "``", line)):
                yield number, match[1]

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all tables, without the header rows."""
        section, header = "", None
        for number, line in enumerate(self.prose, 1):
            if match := _HEADING.match(line):
                section = match[2]
            if not line.startswith("|"):
                header = None
                continue
            cells = tuple(cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            if header is None:
                header = cells
            elif not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                yield Row(number, section, header, cells)


def code_words(text: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


@cache
def pages() -> tuple[Page, ...]:
    """Return all pages of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(_read(name) for name in sorted(set(listed.stdout.split())) if (ROOT / name).exists())


def page(name: str) -> Page:
    return next(each for each in pages() if each.name == name)


def _read(name: str) -> Page:
    prose: list[str] = []
    blocks: list[Block] = []
    section, marker = "", ""
    previous_end = -2
    lines = iter(enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1))
    for number, line in lines:
        prose.append(line)
        if match := _HEADING.match(line):
            section = match[2]
        if match := _MARKER.fullmatch(line.strip()):
            marker = match[1]
        elif opening := _FENCE.match(line):
            body = _until_end(lines, len(opening[1]), f"{name}:{number}")
            prose += [""] * (len(body) + 1)
            follows = number - previous_end == 2
            text = "".join(f"{each}\n" for each in body)
            blocks.append(Block(name, number, opening[2], text, marker, section, follows))
            previous_end = number + len(body) + 1
            marker = ""
        elif line.strip():
            marker = ""
    return Page(name, tuple(prose), tuple(blocks))


def _until_end(lines: Iterator[tuple[int, str]], indent: int, place: str) -> list[str]:
    """Return the lines of a block and consume its closing fence."""
    body = []
    for _, line in lines:
        if line.strip() == "```":
            return body
        body.append(line[indent:])
    raise AssertionError(f"{place}: the code block has no end")
