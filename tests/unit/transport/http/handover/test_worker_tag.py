"""How the id of a session names its worker."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_server.transport.http.handover.worker_tag import new_tag, tag_of


def test_a_session_id_names_its_worker() -> None:
    tag = new_tag()
    assert tag_of(f"u6WdaVySzSaVGvFZAAAA.{tag}") == tag
    assert len({new_tag() for _ in range(1_000)}) == 1_000


@pytest.mark.parametrize(
    "sid",
    [
        "",
        ".",
        "a",
        "u6WdaVySzSaVGvFZAAAA",
        ".0123456789",
        "a.012345678",
        "a.01234567890",
        "a.0123456789\n",
        "a.012345678g",
        "a.012345678F",
        "a.0123456789.",
        "a.../../x",
        "a.\x00123456789",
        "a.٠١٢٣٤٥٦٧٨٩",
    ],
)
def test_an_id_that_no_worker_made_names_none(sid: str) -> None:
    assert tag_of(sid) is None


@given(st.text())
def test_any_text_names_a_worker_at_its_end_or_none(sid: str) -> None:
    tag = tag_of(sid)
    assert tag is None or sid.endswith(f".{tag}")
