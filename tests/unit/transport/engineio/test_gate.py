"""Which Engine.IO requests are accepted, and what the others are answered."""

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_server.transport.engineio.address_limits import AddressLimits
from socket_server.transport.engineio.gate import (
    BAD_METHOD,
    BAD_ORIGIN,
    BAD_REQUEST,
    BAD_VERSION,
    BLOCKED,
    CROWDED,
    DRAINING,
    FULL,
    TOO_LARGE,
    UNKNOWN_SID,
    UNKNOWN_TRANSPORT,
    Gate,
    Refusal,
    Request,
)
from socket_server.transport.engineio.origins import Origins

APP = "https://app.example.com"


def judge(
    query: str, method: str = "GET", origin: str | None = None, sessions: int = 0, gate: Gate | None = None
) -> Refusal | None:
    environ: dict[str, Any] = {"REQUEST_METHOD": method, "QUERY_STRING": query}
    if origin is not None:
        environ["HTTP_ORIGIN"] = origin
    return (gate or Gate(Origins([APP]), 100)).judge(Request.of(environ), environ, sessions)


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_a_handshake_of_protocol_4_is_accepted(transport: str) -> None:
    assert judge(f"EIO=4&transport={transport}") is None
    assert judge(f"EIO=4&transport={transport}&t=abc", origin=APP) is None


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_of_a_session_is_accepted(method: str) -> None:
    assert judge("EIO=4&transport=polling&sid=abc", method) is None


@pytest.mark.parametrize(
    ("query", "method", "refusal"),
    [
        ("", "GET", UNKNOWN_TRANSPORT),
        ("EIO=4", "GET", UNKNOWN_TRANSPORT),
        ("EIO=4&transport=flashsocket", "GET", UNKNOWN_TRANSPORT),
        ("EIO=4&transport=Websocket", "GET", UNKNOWN_TRANSPORT),
        ("EIO=4&transport=constructor&sid=a", "GET", UNKNOWN_TRANSPORT),
        ("EIO=4&transport=polling", "POST", BAD_METHOD),
        ("EIO=4&transport=polling", "PUT", BAD_METHOD),
        ("EIO=4&transport=polling", "HEAD", BAD_METHOD),
        ("EIO=3&transport=polling", "GET", BAD_VERSION),
        ("EIO=5&transport=websocket", "GET", BAD_VERSION),
        ("EIO=abc&transport=polling", "GET", BAD_VERSION),
        ("transport=polling", "GET", BAD_VERSION),
        ("EIO=4&transport=polling&sid=a", "PUT", BAD_REQUEST),
        ("EIO=4&transport=polling&sid=a", "DELETE", BAD_REQUEST),
    ],
)
def test_a_request_outside_the_protocol_is_refused(query: str, method: str, refusal: Refusal) -> None:
    assert judge(query, method) is refusal


def test_a_page_of_another_origin_is_refused_before_anything_else() -> None:
    for query in ("EIO=4&transport=polling", "EIO=4&transport=websocket&sid=a", "", "EIO=3"):
        assert judge(query, origin="https://evil.example") is BAD_ORIGIN
    gate = Gate(Origins([APP]), 1)
    gate.draining = True
    assert judge("EIO=4&transport=polling", origin="null", gate=gate, sessions=9) is BAD_ORIGIN


def test_a_full_server_accepts_no_new_session() -> None:
    gate = Gate(Origins([APP]), 3)
    assert judge("EIO=4&transport=websocket", sessions=2, gate=gate) is None
    assert judge("EIO=4&transport=websocket", sessions=3, gate=gate) is FULL
    assert judge("EIO=4&transport=websocket", sessions=4, gate=gate) is FULL
    assert judge("EIO=4&transport=websocket&sid=a", sessions=3, gate=gate) is None


def test_a_draining_server_accepts_no_new_session_and_serves_the_others() -> None:
    gate = Gate(Origins([APP]), 3)
    gate.draining = True
    assert judge("EIO=4&transport=polling", gate=gate) is DRAINING
    assert judge("EIO=4&transport=polling&sid=a", gate=gate) is None
    assert judge("EIO=4&transport=polling&sid=a", "POST", gate=gate) is None


def test_an_address_with_too_many_connections_is_refused() -> None:
    gate = Gate(Origins([APP]), 100, addresses=AddressLimits(max_connections=1))
    gate.addresses.opened("1.2.3.4")
    environ = {"REQUEST_METHOD": "GET", "QUERY_STRING": "EIO=4&transport=websocket", "REMOTE_ADDR": "1.2.3.4"}
    assert gate.judge(Request.of(environ), environ, 1) is CROWDED
    assert gate.judge(Request.of(environ), {**environ, "REMOTE_ADDR": "5.6.7.8"}, 1) is None


def test_an_address_whose_authentications_failed_is_refused_for_a_while() -> None:
    gate = Gate(Origins([APP]), 100, addresses=AddressLimits(max_failures_per_minute=3))
    environ = {"REQUEST_METHOD": "GET", "QUERY_STRING": "EIO=4&transport=websocket", "REMOTE_ADDR": "1.2.3.4"}
    for _ in range(5):
        gate.addresses.failed("1.2.3.4")
    assert gate.judge(Request.of(environ), environ, 0) is BLOCKED
    assert gate.judge(Request.of(environ), {**environ, "REMOTE_ADDR": "5.6.7.8"}, 0) is None
    assert BLOCKED.response()[0] == "429 Too Many Requests"
    assert "Retry-After" in dict(BLOCKED.response()[1])


def test_a_refused_handshake_is_logged_with_its_origin_at_most_ten_times_a_second(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("socket_server"), "propagate", True)
    gate = Gate(Origins([APP]), 3)
    for _ in range(100):
        judge("EIO=4&transport=polling", origin="https://evil.example", gate=gate)
    assert len(caplog.messages) == 10
    assert "status=403" in caplog.messages[0]
    assert "origin='https://evil.example'" in caplog.messages[0]


@pytest.mark.parametrize(("query", "sessions", "status"), [("EIO=4&transport=polling", 9, 503), ("EIO=3", 0, None)])
def test_only_refusals_that_an_operator_must_explain_are_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, query: str, sessions: int, status: int | None
) -> None:
    monkeypatch.setattr(logging.getLogger("socket_server"), "propagate", True)
    judge(query, sessions=sessions, gate=Gate(Origins([APP]), 3))
    assert [f"status={status}" in message for message in caplog.messages] == ([True] if status else [])


def test_a_transport_that_is_switched_off_is_unknown() -> None:
    gate = Gate(Origins([APP]), 3, transports=("polling",))
    assert judge("EIO=4&transport=websocket", gate=gate) is UNKNOWN_TRANSPORT
    assert gate.upgrades == ()
    assert Gate(Origins([APP]), 3).upgrades == ("websocket",)


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (UNKNOWN_TRANSPORT, "400 Bad Request", 0),
        (UNKNOWN_SID, "400 Bad Request", 1),
        (BAD_METHOD, "400 Bad Request", 2),
        (BAD_REQUEST, "400 Bad Request", 3),
        (BAD_ORIGIN, "403 Forbidden", 4),
        (BAD_VERSION, "400 Bad Request", 5),
    ],
)
def test_a_refusal_has_the_body_of_the_node_js_server(refusal: Refusal, status: str, code: int) -> None:
    line, headers, body = refusal.response()
    assert line == status
    assert dict(headers)["Content-Type"] == "application/json"
    assert dict(headers)["Cache-Control"] == "no-store"
    assert json.loads(body) == {"code": code, "message": refusal.message}
    assert "Retry-After" not in dict(headers)


@pytest.mark.parametrize("refusal", [FULL, DRAINING])
def test_a_temporary_refusal_says_when_to_retry(refusal: Refusal) -> None:
    line, headers, _ = refusal.response()
    assert line == "503 Service Unavailable"
    assert int(dict(headers)["Retry-After"]) >= 1


def test_a_message_that_is_too_large_is_refused_with_413() -> None:
    assert TOO_LARGE.response()[0].startswith("413 ")


def test_an_empty_sid_names_no_session() -> None:
    assert Request.of({"QUERY_STRING": "sid=&EIO=4"}).sid is None


def test_the_first_of_two_parameters_of_one_name_counts() -> None:
    found = Request.of({"QUERY_STRING": "transport=polling&transport=websocket&EIO=4&EIO=3&sid=a&sid=b"})
    assert (found.transport, found.version, found.sid) == ("polling", "4", "a")


def test_a_query_with_too_many_fields_is_not_read() -> None:
    assert judge("&".join(["EIO=4&transport=polling"] * 500)) is UNKNOWN_TRANSPORT


@given(st.text(st.characters(max_codepoint=255)), st.sampled_from(["GET", "POST", "OPTIONS", ""]))
def test_any_query_is_judged(query: str, method: str) -> None:
    refusal = judge(query, method)
    assert refusal is None or refusal.status.value in range(400, 600)
