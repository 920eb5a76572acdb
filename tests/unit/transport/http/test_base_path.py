"""Which paths are below BASE_PATH."""

import pytest

from socket_server.transport.http.errors import HttpError
from socket_server.transport.http.path import below
from socket_server.transport.http.request_head import build_environ


@pytest.mark.parametrize(
    ("path", "rest"),
    [
        ("/push", "/"),
        ("/push/", "/"),
        ("/push/stats", "/stats"),
        ("/pushstats", None),
        ("/stats", None),
        ("/", None),
        ("/push2/stats", None),
        ("/a/push/stats", None),
        ("/Push/stats", None),
    ],
)
def test_a_path_is_below_the_base_path_or_it_is_not_served(path: str, rest: str | None) -> None:
    assert below(path, "/push") == rest
    assert below(path, "") == path


@pytest.mark.parametrize(
    "target",
    [
        b"/stats",
        b"/pushstats",
        b"/p%75sh/stats",
        b"/%2Fpush/stats",
        b"/push%2Fstats",
        b"/push//stats",
        b"//push/stats",
        b"*",
    ],
)
def test_every_other_path_is_a_404(target: bytes) -> None:
    with pytest.raises(HttpError) as refused:
        build_environ({"SCRIPT_NAME": "/push"}, b"GET", target, "1.1", [(b"Host", b"x")])
    assert refused.value.status.startswith("404")


def test_the_base_path_is_the_script_name() -> None:
    environ = build_environ({"SCRIPT_NAME": "/push"}, b"GET", b"/push/users/a%2Fb/x?y", "1.1", [(b"Host", b"x")])
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/push", "/users/a/b/x")
    assert environ["RAW_URI"] == "/push/users/a%2Fb/x?y"
