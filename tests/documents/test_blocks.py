"""Every code block of the documents is run against a real server, or parsed.

A block that cannot be run on a machine without internet has a comment before it, `<!-- not run: the reason -->`;
`pytest -rP -k not_run tests/documents` lists those.
"""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.documents.markdown import Block, Page, pages
from tests.integration.protocol import WebSocketClient
from tests.servers import API_KEY, BIN, ROOT, SECRET, RunningServer, environment, free_port, mint, start, wait_for

LOCAL = "http://localhost:3001"  # the server in the documents
# Their blocks are not checked yet. Remove a page from here with its next version.
LATER = ("README.he.md", "DEPLOYMENT.he.md")
PAGES = [each for each in pages() if each.name not in LATER]
BLOCKS = [block for each in PAGES for block in each.blocks]
# Pages whose commands may be run on a reader's machine. On all others a block of commands has a marker, or is one call of
# the local server.
SAFE = {"README.md", "docs/rest-api.md", "docs/clients.md", "docs/cli.md", "docs/inbox.md"}
SAFE |= {"README.he.md", "docs/he/rest-api.md", "docs/he/clients.md"}

# Members whose value differs from run to run.
VOLATILE = {"id", "at", "uptime", "timestamp", "sid", "node", "since", "address", "userAgent", "deleted"}
VOLATILE |= {"token", "expiresAt", "connectedUsers", "totalConnections", "averageConnectionsPerUser"}

SETTINGS = {"APP_ENV": "development", "JWT_SECRET": SECRET, "API_KEYS": API_KEY, "HOST": "127.0.0.1", "DRAIN_SECONDS": 0}
LANGUAGES = {"", "text", "mermaid", "ini", "json", "yaml", "bash", "js", "html", "python", "swift", "kotlin", "dart"}


class Server:
    """A server in development mode, with API keys, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._log = folder / "server.log"
        self._settings = {**SETTINGS, "PORT": self.port, "INBOX_URL": f"sqlite:///{folder}/inbox.db"}
        self.running = self._start()

    def _start(self) -> RunningServer:
        return start(self._log, [str(BIN / "gunicorn"), "wsgi:app"], self.port, **self._settings)

    def kill_and_start_again(self) -> None:
        os.killpg(self.running.process.pid, signal.SIGKILL)
        self.running.process.wait()
        self.running.session.close()
        self.running = self._start()

    def environment(self) -> dict[str, str]:
        """Return the environment of a reader who follows the documents."""
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        token = mint("123")
        return environment(**self._settings, API_KEY=API_KEY, TOKEN=token) | {"PATH": path, "NO_PROXY": "127.0.0.1"}

    def local(self, text: str) -> str:
        return text.replace(LOCAL, self.running.url)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("documents"))
    yield started
    assert "Traceback" not in started.running.log()
    started.running.stop()
    started.running.session.close()


@contextlib.contextmanager
def signed_in(server: Server, user_id: str) -> Iterator[None]:
    """One connection of a user."""
    client = WebSocketClient(server.running)
    client.send("40" + json.dumps({"token": mint(user_id)}))
    server.running.wait_for_connections(1)
    yield
    client.close()
    server.running.wait_for_connections(0)


# Blocks of the shell, and of programs that end


def is_client(block: Block) -> bool:
    return block.language == "html" or "socket.io-client" in block.text or "socketio.Client" in block.text


def is_safe(block: Block) -> bool:
    return block.page in SAFE or bool(re.fullmatch(rf"curl -s [^\n;|&]*{LOCAL}/\S*\n", block.text))


def runs_to_its_end(block: Block) -> bool:
    if block.not_run or not is_safe(block):
        return False
    return block.language == "bash" or (block.language in ("js", "python") and not is_client(block))


RUNNABLE = [each for each in PAGES if any(runs_to_its_end(block) for block in each.blocks)]


@pytest.mark.parametrize("document", RUNNABLE, ids=lambda document: document.name)
def test_the_blocks_of_a_page_run_in_their_order(document: Page, server: Server, tmp_path: Path, node: str) -> None:
    for user_id in ("123", "456"):
        server.running.session.delete(
            f"{server.running.url}/users/{user_id}/notifications", headers=server.running.api_headers
        )
    with signed_in(server, "123"):
        for number, block in enumerate(document.blocks):
            if runs_to_its_end(block):
                output = run(block, server, tmp_path, node)
                following = document.blocks[number + 1] if number + 1 < len(document.blocks) else None
                if following is not None and following.follows and following.language == "json":
                    check_output(following, output)


def run(block: Block, server: Server, folder: Path, node: str) -> str:
    """Run a block, and return what it prints. It must succeed."""
    text = server.local(block.text)
    file = folder / f"block-{block.line}.{'mjs' if block.language == 'js' else 'py'}"
    if block.language == "bash":
        command = ["bash", "-euo", "pipefail", "-c", text]
    else:
        file.write_text(text, encoding="utf-8")
        command = [node if block.language == "js" else sys.executable, str(file)]
    with publishing(server) if "listen" in text else contextlib.nullcontext():
        done = subprocess.run(command, cwd=folder, env=server.environment(), capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{block}: {done.stdout}{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def publishing(server: Server) -> Iterator[None]:
    """Send a notification to user 7 again and again."""
    ended = threading.Event()

    def publish() -> None:
        while not ended.wait(0.1):
            server.running.broadcast(["7"], {"title": "Hello"})

    thread = threading.Thread(target=publish)
    thread.start()
    yield
    ended.set()
    thread.join()


def check_output(documented: Block, output: str) -> None:
    wanted, found = list(documents_in(documented.text)), list(documents_in(output))
    assert len(found) == len(wanted), f"{documented}: {output}"
    for each, other in zip(wanted, found, strict=True):
        assert alike(each, other), f"{documented}: documented {each}, printed {other}"


def documents_in(text: str) -> Iterator[Any]:
    """Yield the JSON documents in a text, with or without white space between them."""
    decoder, text = json.JSONDecoder(), text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        yield document
        text = text[end:].lstrip()


def alike(documented: Any, printed: Any, member: str = "") -> bool:
    """Return whether two JSON values are equal, apart from the values of volatile members."""
    if isinstance(documented, dict):
        return (
            isinstance(printed, dict)
            and list(documented) == list(printed)
            and all(alike(documented[name], printed[name], name) for name in documented)
        )
    if isinstance(documented, list):
        return (
            isinstance(printed, list)
            and len(documented) == len(printed)
            and all(alike(each, other, member) for each, other in zip(documented, printed, strict=True))
        )
    if member in VOLATILE:
        return isinstance(printed, (int, float)) if isinstance(documented, (int, float)) else isinstance(printed, str)
    return bool(documented == printed)


# Clients


CLIENTS = [block for block in BLOCKS if is_client(block) and not block.not_run]
FIRST, SECOND = {"title": {"en": "First in English only"}}, {"title": "Second, a text"}


def connections_of(block: Block) -> int:
    return len(re.findall(r"= (?:io|socketio\.Client)\(", block.text))


class Shown:
    """What the samples show, by the name of the sample. Each process has a thread that reads its output."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._texts: list[tuple[str, str]] = []

    def read(self, process: subprocess.Popen[str], name: str = "") -> None:
        def follow() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    shown = json.loads(line)
                    self._lines.put((shown["name"], shown["text"]))
                    continue
                self._lines.put((name, line))

        threading.Thread(target=follow, daemon=True).start()

    def counts(self, text: str) -> Counter[str]:
        """Return how often each sample has shown something that holds this text."""
        while not self._lines.empty():
            self._texts.append(self._lines.get())
        return Counter(name for name, shown in self._texts if text in shown)

    def everything(self) -> str:
        return "\n".join(f"{name}: {text.rstrip()}" for name, text in self._texts)


def test_every_client_survives_a_restart_and_a_failed_token_request(server: Server, tmp_path: Path, node: str) -> None:
    expected = Counter({name_of(block): connections_of(block) for block in CLIENTS})
    shown = Shown()
    with contextlib.ExitStack() as stack:
        for process, name in start_clients(server, tmp_path, node):
            stack.callback(end, process)
            shown.read(process, name)
        total = expected.total()
        wait_for(
            lambda: server.running.stats()["totalConnections"] == total, what=f"{total} connections: {shown.everything()}"
        )
        server.running.broadcast(["123"], FIRST)
        wait_for(lambda: shown.counts("First") == expected, what=f"the first notification: {shown.everything()}")
        server.kill_and_start_again()
        server.running.broadcast(["123"], SECOND)
        wait_for(lambda: shown.counts("Second") == expected, what=f"the second notification: {shown.everything()}")
        server.running.wait_for_connections(total)
        assert shown.counts("First") == expected, "a notification came twice"


def name_of(block: Block) -> str:
    return f"{Path(block.page).stem}-{block.line}"


def start_clients(server: Server, folder: Path, node: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Start all samples: those in JavaScript in one process, each of the others in one of its own."""
    samples = folder / "samples"
    samples.mkdir()
    for block in CLIENTS:
        text = server.local(block.text)
        if block.language == "html":
            text = re.findall(r'<script type="module">(.*?)</script>', text, re.DOTALL)[0]
        if block.language == "python":
            file = folder / f"{name_of(block)}.py"
            file.write_text(text, encoding="utf-8")
            yield popen([sys.executable, str(file)], server), name_of(block)
        else:
            suffix = "hook.mjs" if "from 'react'" in text else "mjs"
            (samples / f"{name_of(block)}.{suffix}").write_text(text, encoding="utf-8")
    yield popen([node, str(ROOT / "tests/documents/samples.mjs"), str(samples)], server), ""


def popen(command: list[str], server: Server) -> "subprocess.Popen[str]":
    client = ROOT / "tests/clients/node_modules/socket.io-client/build/esm/index.js"
    env = server.environment() | {"CLIENT": client.as_uri()}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


# Blocks that are parsed


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "json"], ids=str)
def test_json_is_json(block: Block) -> None:
    assert list(documents_in(block.text))


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_yaml_is_yaml(block: Block) -> None:
    assert list(yaml.safe_load_all(block.text))


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "bash" and block.not_run], ids=str)
def test_commands_that_are_not_run_are_well_formed(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "mermaid"], ids=str)
def test_diagrams_are_of_a_known_kind(block: Block) -> None:
    assert block.text.startswith(("flowchart ", "sequenceDiagram", "stateDiagram-v2", "graph "))


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    assert {block.language for block in BLOCKS} <= LANGUAGES
    checked = [block for block in BLOCKS if block.not_run or is_safe(block)]
    unmarked = [
        str(block) for block in BLOCKS if block not in checked and block.language in ("bash", "js", "html", "python")
    ]
    assert not unmarked, "write <!-- not run: the reason --> before these, or make their page one of SAFE"
    assert not [str(block) for block in BLOCKS if block.language in ("swift", "kotlin", "dart") and not block.not_run]


def test_blocks_that_are_not_run_say_why() -> None:
    for block in BLOCKS:
        if block.not_run:
            print(f"{block} ({block.language}): {block.not_run}")
            assert len(block.not_run) > 10
