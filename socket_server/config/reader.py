"""Reads variables one by one, each as one type, and collects every problem instead of stopping at the first."""

import math
import re
from collections.abc import Mapping, Sequence


class Reader:
    """Variables by name. An empty variable counts as unset. `problems` is the list of messages, each with its remedy."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._read: dict[str, str] = {}  # the variables that were asked for, in that order
        self.problems: list[str] = []

    def problem(self, text: str) -> None:
        """Add a problem. text: starts with the variable's name and ends with the remedy."""
        self.problems.append(text)

    def has_problem(self, *names: str) -> bool:
        """Return whether there is a problem with one of these variables."""
        return any(problem.startswith(names) for problem in self.problems)

    def quoted(self) -> tuple[str, ...]:
        """Return the variables read so far with quotation marks around their value: `docker run --env-file` keeps them."""
        return tuple(name for name, value in self._read.items() if re.fullmatch(r"""(["']).*\1""", value, re.DOTALL))

    def raw(self, name: str) -> str:
        value = self._read[name] = self._environ.get(name, "").strip()
        return value

    def text(self, name: str, default: str) -> str:
        return self.raw(name) or default

    def words(self, name: str) -> tuple[str, ...]:
        """Return the members of a comma-separated list."""
        return tuple(word.strip() for word in self.raw(name).split(",") if word.strip())

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        value = self.raw(name).lower() or default
        if value not in choices:
            self.problem(f"{name} is {value!r}: use one of {', '.join(choices)}")
        return value

    def flag(self, name: str) -> bool:
        value = self.raw(name).lower()
        if value not in ("", "0", "1", "true", "false", "yes", "no"):
            self.problem(f"{name} is {value!r}: use 1 or 0")
        return value in ("1", "true", "yes")

    def number(self, name: str, default: float, low: float, high: float, *, whole: bool = False) -> float:
        value = self.raw(name)
        if not value:
            return default
        try:
            number = int(value) if whole else float(value)
        except ValueError:
            number = math.nan
        if not low <= number <= high:  # false for NaN
            self.problem(f"{name} is {value!r}: use a {'whole ' if whole else ''}number from {low:,} to {high:,}")
            return default
        return number

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        return int(self.number(name, default, low, high, whole=True))

    def matching(self, name: str, default: str, pattern: str, remedy: str) -> str:
        """Return a text that matches a regular expression completely."""
        value = self.text(name, default)
        if not re.fullmatch(pattern, value):
            self.problem(f"{name} is {value!r}: {remedy}")
            return default
        return value

    def cookie_name(self, name: str, default: str) -> str:
        # A token, RFC 6265, section 4.1.1.
        return self.matching(
            name, default, r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", "the name of a cookie has letters, digits, - and _ only"
        )

    def subset(self, name: str, choices: Sequence[str]) -> tuple[str, ...]:
        words = self.words(name) or tuple(choices)
        unknown = [word for word in words if word not in choices]
        if unknown:
            self.problem(f"{name} names {', '.join(unknown)}: use {' or '.join(choices)}, or both")
        return words
