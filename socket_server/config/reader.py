"""Reads variables one by one, each as one type, and collects every problem instead of stopping at the first."""

import ipaddress
import math
import re
import ssl
from collections.abc import Mapping, Sequence

from socket_server.config.settings import Network


class Reader:
    """Variables by name. An empty variable counts as unset. `problems` is the list of messages, each with its remedy."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []

    def problem(self, text: str) -> None:
        """Add a problem. text: starts with the variable's name and ends with the remedy."""
        self.problems.append(text)

    def has_problem(self, *names: str) -> bool:
        """Return whether there is a problem with one of these variables."""
        return any(problem.startswith(names) for problem in self.problems)

    def raw(self, name: str) -> str:
        return self._environ.get(name, "").strip()

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

    def networks(self, name: str) -> tuple[Network, ...]:
        """Return the addresses and networks of a list; the word `unix` is left to the caller."""
        found = []
        for word in self.words(name):
            if word.lower() == "unix":
                continue
            try:
                found.append(ipaddress.ip_network(word, strict=False))
            except ValueError:
                self.problem(f"{name} has {word!r}: use addresses, networks like 10.0.0.0/8, or unix")
        return tuple(found)

    def file(self, name: str) -> str:
        path = self.raw(name)
        if path:
            try:
                with open(path, "rb"):
                    pass
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "no valid path"
                self.problem(f"{name} is {path!r}, which cannot be read ({reason}): name a readable PEM file")
        return path

    def certificate(self, cert: str, key: str) -> None:
        """Check that a certificate chain and its private key work together."""
        try:
            # Without a password callback, OpenSSL would ask for the passphrase on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
        except (OSError, ValueError) as error:
            self.problem(
                f"SSL_CERT and SSL_KEY do not work together ({error}): give a PEM chain and its private key, "
                "without a passphrase"
            )
