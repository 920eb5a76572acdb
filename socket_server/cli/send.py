"""`socket-server send`: POST /broadcast."""

import argparse
import json
from typing import Any

from socket_server.cli import http, secrets
from socket_server.cli.errors import CommandError


def run(options: argparse.Namespace) -> int:
    """Send a notification, and print the answer."""
    body: dict[str, Any] = {"userIds": options.users, "notification": notification(options)}
    if options.ttl is not None:
        body["ttl"] = options.ttl
    headers = {}
    if options.idempotency_key is not None:
        headers["Idempotency-Key"] = secrets.sendable(options.idempotency_key, "the idempotency key")
    answer = http.call(options, "POST", "/broadcast", json=body, headers=headers)
    print(answer.text)
    return 0 if answer.ok else 1


def notification(options: argparse.Namespace) -> dict[str, Any]:
    """Return the notification that the options describe. Raises CommandError."""
    built: dict[str, Any] = {}
    for name in ("title", "body"):
        languages = {code: text for code in ("he", "en") if (text := getattr(options, f"{name}_{code}")) is not None}
        plain = getattr(options, name)
        if plain is not None and languages:
            raise CommandError(f"--{name} beside --{name}-he or --{name}-en: give one text, or one for each language")
        if plain is not None or languages:
            built[name] = languages or plain
    metadata = {name: value for name in ("url", "icon", "priority") if (value := getattr(options, name)) is not None}
    if metadata:
        built["metadata"] = metadata
    if options.action_key is not None:
        built["actionKey"] = options.action_key
    if options.data is not None:
        try:
            built["data"] = json.loads(options.data, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise CommandError(f"--data is not JSON: {error}") from None
    return built


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a value of JSON")
