"""gunicorn's options: each takes effect or is refused by name."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from gunicorn.config import Config

from socket_server import serve
from socket_server.config import Settings
from socket_server.workers import options
from socket_server.workers.options import EFFECTIVE, FILE_ONLY, REFUSED

# A value of each refused option that is not its default, as on the command line.
VALUES = {
    "threads": ["--threads", "4"],
    "reuse_port": ["--reuse-port"],
    "max_requests": ["--max-requests", "1000"],
    "max_requests_jitter": ["--max-requests-jitter", "50"],
    "limit_request_line": ["--limit-request-line", "8190"],
    "limit_request_fields": ["--limit-request-fields", "50"],
    "limit_request_field_size": ["--limit-request-field_size", "100"],
    "sendfile": ["--no-sendfile"],
    "forwarded_allow_ips": ["--forwarded-allow-ips", "*"],
    "forwarder_headers": ["--forwarder-headers", "X"],
    "header_map": ["--header-map", "refuse"],
    "root_path": ["--root-path", "/x"],
    "protocol": ["--protocol", "uwsgi"],
    "uwsgi_allow_ips": ["--uwsgi-allow-from", "*"],
    "ssl_version": ["--ssl-version", "TLSv1_2"],
    "do_handshake_on_connect": ["--do-handshake-on-connect"],
    "errorlog": ["--error-logfile", "/tmp/x"],
    "loglevel": ["--log-level", "debug"],
    "syslog": ["--log-syslog"],
    "statsd_host": ["--statsd-host", "localhost:8125"],
    "http_protocols": ["--http-protocols", "h2,h1"],
    "http_parser": ["--http-parser", "python"],
    "permit_obsolete_folding": ["--permit-obsolete-folding"],
    "websocket_max_message_size": ["--websocket-max-message-size", "5"],
    "dirty_workers": ["--dirty-workers", "1"],
    "control_socket": ["--control-socket", "/tmp/x"],
}


def parse(arguments: Sequence[str], **settings: object) -> Config:
    """Return gunicorn's settings after a command line."""
    cfg = Config()
    cfg.set("worker_class", serve.WORKER)
    cfg.set("graceful_timeout", 15)
    for name, value in settings.items():
        cfg.set(name, value)
    for name, value in vars(cfg.parser().parse_args(arguments)).items():
        if value is not None and name != "args":
            cfg.set(name.lower(), value)
    return cfg


def test_every_option_of_gunicorn_is_in_one_table() -> None:
    tables = [EFFECTIVE, FILE_ONLY, frozenset(REFUSED)]
    assert set().union(*tables) == set(Config().settings)
    assert sum(map(len, tables)) == len(Config().settings)


@pytest.mark.parametrize("option", VALUES)
def test_an_option_without_effect_is_refused_by_name(option: str) -> None:
    (problem,) = options.problems_with(parse(VALUES[option]))
    assert VALUES[option][0] in problem
    assert REFUSED[option] in problem


def test_an_option_with_its_default_value_is_accepted() -> None:
    assert options.problems_with(parse([])) == []
    assert options.problems_with(parse(["--threads", "1", "--max-requests", "0"])) == []


def test_options_with_effect_are_accepted() -> None:
    arguments = ["--proxy-protocol", "--proxy-allow-from", "10.0.0.0/8", "--keep-alive", "5", "--backlog", "100"]
    arguments += ["--access-logfile", "-", "--name", "x", "--timeout", "60", "--worker-connections", "50"]
    assert options.problems_with(parse(arguments)) == []


def test_a_platforms_forwarded_allow_ips_does_not_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    assert options.problems_with(parse([])) == []


@pytest.mark.parametrize(("timeout_s", "refused"), [(5, True), (14, True), (15, False), (60, False)])
def test_a_graceful_timeout_shorter_than_the_drain_is_refused(timeout_s: int, refused: bool) -> None:
    problems = serve.problems_with(parse(["--graceful-timeout", str(timeout_s)]), Settings(drain_s=10))
    assert [problem for problem in problems if "--graceful-timeout" in problem] == problems
    assert bool(problems) is refused


def test_the_servers_own_settings_are_accepted() -> None:
    cfg = SimpleNamespace(**{name: setting.get() for name, setting in Config().settings.items()})
    assert cfg.proxy_protocol == "off"
    assert serve.problems_with(parse([], keepalive=75, control_socket_disable=True), Settings(drain_s=10)) == []
