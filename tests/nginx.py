"""nginx with the shipped configuration, installed in a folder of a test."""

import contextlib
import getpass
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.integration.certificates import self_signed
from tests.servers import ROOT, RunningServer, free_port, wait_for

SHIPPED = ROOT / "deploy/nginx"
NAME = "notify.example.com"


@dataclass(slots=True)
class RunningNginx:
    """https: as a client sees it. plain: the port of HTTP without TLS. http: the port that redirects to HTTPS. folder: its
    configuration and logs."""

    https: RunningServer
    plain: int
    http: int
    folder: Path


def install(folder: Path, ports: Sequence[int], http: int, https: int, plain: int, changes: Mapping[str, str]) -> None:
    """Copy the shipped files and replace ports, paths and certificates. Fails if one of these is not in the files.

    ports: of the one node or of the three. changes: more text to replace, in any of the files.
    """
    certificate, key = self_signed(folder)
    shutil.copytree(SHIPPED / "socket-server", folder / "socket-server")
    site = (SHIPPED / "socket-server.conf").read_text()
    (folder / "socket-server.conf").write_text(
        _replaced(
            site,
            {
                "listen 80;": f"listen 127.0.0.1:{http};",
                "listen 443 ssl;": f"listen 127.0.0.1:{https} ssl; listen 127.0.0.1:{plain};",
                f"/etc/letsencrypt/live/{NAME}/fullchain.pem": str(certificate),
                f"/etc/letsencrypt/live/{NAME}/privkey.pem": str(key),
                "/var/log/nginx/": f"{folder}/",
                "one-node.conf": "one-node.conf" if len(ports) == 1 else "three-nodes.conf",
            },
        )
    )
    if len(ports) == 1:
        nodes, addresses = "one-node.conf", {"127.0.0.1:3001": f"127.0.0.1:{ports[0]}"}
    else:
        nodes = "three-nodes.conf"
        addresses = {f"node{number}:3001": f"127.0.0.1:{port}" for number, port in enumerate(ports, 1)}
    nodes_file = folder / "socket-server" / nodes
    nodes_file.write_text(_replaced(nodes_file.read_text(), addresses))
    for shipped, ours in changes.items():
        changed = [file for file in (folder / "socket-server").iterdir() if shipped in file.read_text()]
        assert changed, shipped
        for file in changed:
            file.write_text(file.read_text().replace(shipped, ours))
    (folder / "nginx.conf").write_text(_main_configuration(folder))


def _replaced(text: str, changes: Mapping[str, str]) -> str:
    for shipped, ours in changes.items():
        assert shipped in text, shipped
        text = text.replace(shipped, ours)
    return text


def _main_configuration(folder: Path) -> str:
    temporary = "\n".join(
        f"    {kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
user {getpass.getuser()};
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_processes 1;
events {{ worker_connections 2048; }}
http {{
{temporary}
    include {folder}/socket-server.conf;
}}
"""


@contextlib.contextmanager
def running_nginx(
    program: str, folder: Path, ports: Sequence[int], changes: Mapping[str, str] | None = None
) -> Iterator[RunningNginx]:
    """Run nginx in front of the servers on these ports: one or three. changes: of the shipped files, such as shorter
    times."""
    http, https, plain = free_port(), free_port(), free_port()
    install(folder, ports, http, https, plain, changes or {})
    checked = subprocess.run([program, "-t", "-c", folder / "nginx.conf"], capture_output=True, text=True, timeout=20)
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen([program, "-c", folder / "nginx.conf"], stderr=subprocess.DEVNULL)
    front = RunningServer(process, https, folder / "error.log", "https")
    front.session.verify = False
    front.session.trust_env = False
    front.session.headers["Host"] = NAME

    def answers() -> bool:
        assert process.poll() is None, front.log()
        with contextlib.suppress(requests.ConnectionError):
            front.get("/health/live")
            return True
        return False

    try:
        wait_for(answers, what="nginx's first answer")
        yield RunningNginx(front, plain, http, folder)
    finally:
        process.terminate()
        process.wait(10)
        front.session.close()
