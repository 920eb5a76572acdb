"""Every route, event, refusal and command is documented, and what is documented exists."""

import argparse
import ast
import re
from functools import cache

import pytest

from socket_server.app import create_app
from socket_server.cli.main import parser as cli_parser
from socket_server.config import Settings
from socket_server.transport.engineio import gate
from tests.documents.markdown import code_words, page
from tests.servers import ROOT

SECRET = "a-secret-of-enough-bytes-for-every-hash-0123456789"
PARAMETER = re.compile(r"<(?:[a-z_]+:)?(?:[a-z]+_)?(?P<name>[a-z]+)>")
ROUTE = re.compile(r"(?:GET|POST|PUT|PATCH|DELETE) /\S*")


def documented(name: str, section: str) -> list[tuple[str, ...]]:
    """Return the cells of the tables of a section."""
    return [row.cells for row in page(name).rows() if row.section == section]


@cache
def calls() -> list[ast.Call]:
    """Return every call in the package's source."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in (ROOT / "socket_server").rglob("*.py")]
    return [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]


def called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def texts(call: ast.Call) -> list[str]:
    return [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]


def shown(parameter: re.Match[str]) -> str:
    return f"<{parameter['name']}>"


@pytest.fixture(scope="module")
def routes() -> set[str]:
    """The routes of a server in development mode, which has all of them."""
    app = create_app(Settings(app_env="development", inbox_url="memory://", jwt_secrets=(SECRET,), api_keys=("key",)))
    app.extensions["socket_server"].close()
    return {
        f"{method} {PARAMETER.sub(shown, rule.rule)}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def test_every_route_is_documented(routes: set[str]) -> None:
    prose = "\n".join(page("docs/rest-api.md").prose)
    listed = {word for word in re.findall(r"`([^`]+)`", prose) if ROUTE.fullmatch(word)}
    assert {route.rstrip("/") if route != "GET /" else route for route in routes} == listed


def test_every_route_with_an_own_section_is_linked_from_the_table() -> None:
    listed = [word for row in documented("docs/rest-api.md", "REST API") for word in code_words(row[0])]
    assert len(listed) == len(set(listed))
    assert {"POST /broadcast", "GET /health", "GET /stats"} <= set(listed)


def test_every_event_is_documented() -> None:
    table = documented("docs/protocol.md", "Events")
    inwards = {code_words(row[0])[0] for row in table if row[1] == "to the server"}
    outwards = {code_words(row[0])[0] for row in table if row[1] == "to the client"}
    handled = {texts(call)[0] for call in calls() if called(call) == "on" and "socketio" in ast.unparse(call.func)}
    sent = {texts(call)[0] for call in calls() if called(call) in ("emit", "encode_event") and texts(call)}
    assert inwards == handled - {"connect", "disconnect"}
    assert outwards == sent | {"notification"}


def test_every_refusal_of_an_authentication_is_documented() -> None:
    table = documented("docs/protocol.md", "Authentication")
    listed = {(code_words(row[0])[0], code_words(row[1])[0]) for row in table if len(row) == 3 and row[1].startswith("`")}
    raised = {tuple(texts(call)) for call in calls() if called(call) == "AuthenticationError"}
    assert listed == raised


def test_every_refusal_of_a_handshake_is_documented() -> None:
    table = documented("docs/protocol.md", "Refused handshakes")
    listed = {(int(row[0]), int(row[1]), code_words(row[2])[0]) for row in table}
    known = {(each.status.value, each.code, each.message) for each in vars(gate).values() if isinstance(each, gate.Refusal)}
    assert listed == known


def commands() -> dict[str, argparse.ArgumentParser]:
    (action,) = [each for each in cli_parser()._actions if isinstance(each, argparse._SubParsersAction)]
    return dict(action.choices)


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Return the options, and the name of each positional argument as the help shows it."""
    found = set()
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        found |= set(action.option_strings) or {(action.metavar or action.dest).upper()}  # type: ignore[union-attr]
    return found


def test_every_command_has_a_section() -> None:
    headings = {line[3:] for line in page("docs/cli.md").prose if line.startswith("## ")}
    assert headings == set(commands()) | {"Exit status"}


@pytest.mark.parametrize("name", commands())
def test_every_option_is_documented(name: str) -> None:
    words = [word for row in documented("docs/cli.md", name) for word in code_words(row[0])]
    assert {re.sub(r"[ …].*", "", word) for word in words} == options(commands()[name])
