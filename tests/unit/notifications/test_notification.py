"""Broadcast requests: validated completely; the notification is kept byte for byte."""

# ruff: noqa: PT017 - generated requests may be refused or not, which pytest.raises cannot express

import hashlib
import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from socket_server.errors import RequestError
from socket_server.notifications.notification import (
    MAX_BATCH,
    MAX_KEY_LENGTH,
    MAX_TTL_S,
    Broadcast,
    parse,
    parse_batch,
)


def body(**members: Any) -> bytes:
    return json.dumps({"userIds": ["1"], "notification": {}, **members}).encode()


def refusal(request: bytes, max_users: int = 100) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse(request, max_users)
    error = caught.value
    assert error.status in (400, 413)
    # The error is sent as JSON in UTF-8.
    assert orjson.dumps({"error": error.error, "message": error.message})
    return error


# A complete request


def test_a_broadcast_is_read_as_it_was_sent() -> None:
    notification = (
        '{"actionKey": "updateTask", "title": {"he": "כותרת", "en": "Title"}, "body": {"he": "תוכן", "en": "Content"}, '
        '"metadata": {"url": "/lev", "icon": "https://x.example/i.png", "priority": "normal"}, '
        '"data": {"any": ["thing", 1.50, null]}, "updateStrategy": {"type": "partialUpdate"}}'
    )
    found = parse(f'{{"userIds": ["123", "456"], "notification": {notification}}}'.encode(), 100)
    assert found == Broadcast(("123", "456"), 2, notification.encode(), None)


def test_an_empty_list_and_an_empty_notification_are_fine() -> None:
    assert parse(b'{"userIds":[],"notification":{}}', 1) == Broadcast((), 0, b"{}", None)


def test_unknown_members_beside_them_are_fine() -> None:
    assert parse(body(note="x", priority=7), 1).user_ids == ("1",)


# userIds


@pytest.mark.parametrize("request_", [b"[]", b"7", b"null", b'"x"', b"{}", b'{"notification":{}}', b'{"userids":[]}'])
def test_a_body_without_user_ids_is_refused(request_: bytes) -> None:
    error = refusal(request_)
    assert (error.status, error.error) == (400, "userIds must be an array")
    assert error.message


@pytest.mark.parametrize("value", [None, "1", 1, {}, {"0": "1"}, True])
def test_user_ids_that_are_no_array_are_refused(value: Any) -> None:
    error = refusal(body(userIds=value))
    assert (error.status, error.error) == (400, "userIds must be an array")


@pytest.mark.parametrize("value", [None, True, False, [], ["1"], {}])
@pytest.mark.parametrize("index", [0, 2])
def test_an_element_of_another_type_is_refused_by_its_index(value: Any, index: int) -> None:
    ids: list[Any] = ["a", 5, 7.0]
    ids[index] = value
    error = refusal(body(userIds=ids))
    assert error.status == 400
    assert f"userIds[{index}]" in error.error


def in_batch(request: bytes) -> RequestError:
    """Return the refusal of a broadcast that is one of a batch, between two good ones."""
    good = body()
    first, refused, last = parse_batch(b'{"broadcasts":[%b,%b,%b]}' % (good, request, good), 100)
    assert isinstance(first, Broadcast)
    assert isinstance(last, Broadcast)
    assert isinstance(refused, RequestError)
    return refused


@pytest.mark.parametrize("ids", [[""], ["1", ""], [1, 2.5, ""], ["1"] * 90 + [""], ["ä", ""], ["", ""], ["1", "", None]])
def test_an_empty_id_is_refused_by_its_index(ids: list[Any]) -> None:
    for error in (refusal(body(userIds=ids)), in_batch(body(userIds=ids))):
        assert (error.status, error.error) == (400, f"userIds[{ids.index('')}] must not be empty")


def test_an_empty_id_is_refused_by_its_index_in_a_body_that_is_parsed_slowly_too() -> None:
    request = b'{"userIds":["1","","x"],"notification":{"title":"\\ud83d"}}'
    for error in (refusal(request), in_batch(request)):
        assert (error.status, error.error) == (400, "userIds[1] must not be empty")


@pytest.mark.parametrize(
    "id_", ["x" * 256, "א" * 128, "€" * 85, "😀" * 64, "x" * 254 + "א", 10**255, " ", "\x00", ".", ".."]
)
def test_an_id_has_up_to_256_bytes(id_: str | int) -> None:
    assert parse(body(userIds=["1", id_]), 9).user_ids == ("1", str(id_))
    raw = json.dumps({"userIds": ["1", id_], "notification": {}}, ensure_ascii=False).encode()
    assert parse(raw, 9).user_ids == ("1", str(id_))


@pytest.mark.parametrize(
    "id_", ["x" * 257, "א" * 129, "€" * 86, "😀" * 65, "x" * 255 + "א", "x" * 1_000_000, 10**256, -(10**255), 1e300]
)
@pytest.mark.parametrize("index", [0, 2])
def test_a_longer_id_is_refused_by_its_index(id_: str | float, index: int) -> None:
    ids: list[Any] = ["1", "א"]
    ids.insert(index, id_)
    for ascii_only in (True, False):
        raw = json.dumps({"userIds": ids, "notification": {}}, ensure_ascii=ascii_only).encode()
        for error in (refusal(raw), in_batch(raw)):
            assert (error.status, error.error) == (400, f"userIds[{index}] must be at most 256 bytes")
            assert len(error.message) < 100


@pytest.mark.parametrize(
    ("literal", "text"),
    [
        ("1", "1"),
        ("0", "0"),
        ("-7", "-7"),
        ("1.0", "1"),
        ("1.5", "1.5"),
        ("1e3", "1000"),
        ("9007199254740993", "9007199254740993"),
        ("9223372036854775808", "9223372036854775808"),
        ("18446744073709551615", "18446744073709551615"),
        ("18446744073709551616", "18446744073709551616"),
        ("-9223372036854775809", "-9223372036854775809"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
    ],
)
def test_a_number_is_taken_as_its_decimal_string(literal: str, text: str) -> None:
    assert parse(f'{{"userIds":[{literal}],"notification":{{}}}}'.encode(), 9).user_ids == (text,)


def test_ids_beside_a_large_number_and_the_notification_stay_exact() -> None:
    request = '{"userIds":[18446744073709551617, "18446744073709551617", 3.5, "ä"],"notification":{"a" : 1.0}}'.encode()
    assert parse(request, 9) == Broadcast(("18446744073709551617", "3.5", "ä"), 4, b'{"a" : 1.0}', None)


def test_duplicates_count_once_for_delivery_and_twice_as_requested() -> None:
    found = parse(body(userIds=["2", "1", 2, "2", 1.0, "3"]), 9)
    assert found.user_ids == ("2", "1", "3")
    assert found.requested_users == 6


def test_too_many_users_are_413_with_the_limit() -> None:
    assert parse(body(userIds=["1"] * 3), 3).requested_users == 3
    error = refusal(body(userIds=["1"] * 4), 3)
    assert error.status == 413
    assert "3" in error.message


# notification


@pytest.mark.parametrize("value", [None, [], "x", 7, True, 1.5, [{}]])
def test_a_notification_that_is_no_object_is_refused(value: Any) -> None:
    error = refusal(body(notification=value))
    assert (error.status, error.error) == (400, "notification is required")


def test_a_missing_notification_is_refused() -> None:
    error = refusal(b'{"userIds":["1"]}')
    assert (error.status, error.error) == (400, "notification is required")


@pytest.mark.parametrize("name", ["title", "body"])
@pytest.mark.parametrize("value", ["", "text", {}, {"he": "כותרת"}, {"en": "a", "fr": "b", "": "c"}])
def test_title_and_body_are_a_string_or_an_object_of_strings(name: str, value: Any) -> None:
    assert json.loads(parse(body(notification={name: value}), 9).notification) == {name: value}


@pytest.mark.parametrize("name", ["title", "body"])
@pytest.mark.parametrize("value", [None, 7, True, [], ["x"], 1.5])
def test_a_text_of_another_type_is_refused_by_its_path(name: str, value: Any) -> None:
    error = refusal(body(notification={name: value}))
    assert error.status == 400
    assert error.error.startswith(f"notification.{name} must be")


@pytest.mark.parametrize("name", ["title", "body"])
@pytest.mark.parametrize("value", [None, 7, True, [], {}, {"he": "x"}])
def test_a_language_that_is_no_string_is_refused_by_its_path(name: str, value: Any) -> None:
    error = refusal(body(notification={name: {"en": "fine", "he": value}}))
    assert error.error == f"notification.{name}.he must be a string"


@pytest.mark.parametrize("priority", ["low", "normal", "high"])
def test_the_three_priorities_pass(priority: str) -> None:
    assert parse(body(notification={"metadata": {"priority": priority}}), 9)


@pytest.mark.parametrize("priority", ["", "urgent", "High", "low ", None, 1, True, [], {}, ["low"], "x" * 1_000])
def test_another_priority_is_refused_by_its_path(priority: Any) -> None:
    error = refusal(body(notification={"metadata": {"priority": priority}}))
    assert (error.status, error.error) == (400, "notification.metadata.priority must be low, normal or high")
    assert len(error.message) < 200


@pytest.mark.parametrize("metadata", [None, [], "x", 7, True])
def test_metadata_is_an_object(metadata: Any) -> None:
    assert refusal(body(notification={"metadata": metadata})).error == "notification.metadata must be an object"


@pytest.mark.parametrize(
    "members",
    [
        {"data": None},
        {"data": 7},
        {"actionKey": []},
        {"updateStrategy": "x"},
        {"metadata": {"url": 7, "icon": None}},
        {"x": [[]]},
    ],
)
def test_all_other_fields_pass_through(members: dict[str, Any]) -> None:
    assert json.loads(parse(body(notification=members), 9).notification) == members


@pytest.mark.parametrize("user_id", ["\\ud800", "x\\udfff", "\\ude00\\ud83d", "שלום\\ud83d"])
def test_an_id_with_half_of_a_surrogate_pair_is_refused(user_id: str) -> None:
    for ids in (f'"{user_id}"', f'"fine",7,"{user_id}"'):
        error = refusal(f'{{"userIds":[{ids}],"notification":{{}}}}'.encode())
        assert error.status == 400
        assert error.error == f"userIds[{ids.count(',')}] must be Unicode text"
    (found, other) = parse_batch(
        f'{{"broadcasts":[{{"userIds":["{user_id}"],"notification":{{}}}},{{"userIds":["1"],"notification":{{}}}}]}}'.encode(),
        5,
    )
    assert isinstance(found, RequestError)
    assert found.error == "userIds[0] must be Unicode text"
    assert isinstance(other, Broadcast)


def test_a_whole_surrogate_pair_is_an_id_beside_half_of_one_in_the_notification() -> None:
    request = b'{"userIds":["\\ud83d\\ude00"],"notification":{"title":"\\ud83d"}}'
    assert parse(request, 9).user_ids == ("\U0001f600",)


# ttl


@pytest.mark.parametrize(
    ("value", "ttl_s"), [(None, None), (0, 0.0), (60, 60.0), (1.5, 1.5), (MAX_TTL_S, float(MAX_TTL_S))]
)
def test_the_ttl_is_a_number_of_seconds(value: Any, ttl_s: float | None) -> None:
    assert parse(body(ttl=value), 9).ttl_s == ttl_s


@pytest.mark.parametrize("value", [-1, -0.5, True, False, "60", "", [], {}, MAX_TTL_S + 1, 2**64, 1e300])
def test_another_ttl_is_refused(value: Any) -> None:
    error = refusal(body(ttl=value))
    assert error.status == 400
    assert error.error.startswith("ttl must be a number")


@pytest.mark.parametrize("zeros", [20, 308, 309, 400, 4_000])
def test_a_ttl_beyond_all_numbers_is_refused_or_a_finite_number(zeros: int) -> None:
    request = b'{"userIds":["1"],"notification":{},"ttl":1%b}' % (b"0" * zeros)
    try:
        found = parse(request, 9)
    except RequestError as error:
        assert error.status == 400
    else:
        assert found.ttl_s is not None
        assert math.isfinite(found.ttl_s)


# Not JSON


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b" ",
        b"{",
        b"nonsense",
        b'{"userIds":["1"],"notification":{},}',
        b"{'userIds':[],'notification':{}}",
        b'{"userIds":["1"],"notification":{}} x',
        b'{"userIds":["1"],"notification":{"a":NaN}}',
        b'{"userIds":["1"],"notification":{"a":Infinity}}',
        b'{"userIds":["1"],"notification":{"a":-Infinity}}',
        b'{"userIds":[NaN],"notification":{}}',
        b'{"userIds":["1"],"notification":{},"ttl":Infinity}',
        b'{"userIds":["1"],"notification":{"a":01}}',
        b'{"userIds":["1"],"notification":{"a":"\x01"}}',
        b'{"userIds":["1"],"notification":{"a":"\\x"}}',
        b'{"userIds":["\xff"],"notification":{}}',
        b'{"userIds":["1"],"notification":{"a":"\xed\xa0\x80"}}',
        b'{"userIds":["1"],"notification":{"a":"\xc0\xaf"}}',
        b"\xef\xbb\xbf",
        b'\xef\xbb\xbf\xef\xbb\xbf{"userIds":["1"],"notification":{}}',
        b' \xef\xbb\xbf{"userIds":["1"],"notification":{}}',
        b'\xef\xbb{"userIds":["1"],"notification":{}}',
        b'{"userIds":["1"],\xef\xbb\xbf"notification":{}}',
        b'{"userIds":["1"],"notification":{}}\xef\xbb\xbf',
        '{"userIds":["1"],"notification":{}}'.encode("utf-16"),
        b'{"userIds":["1"],"notification":{"title":"\\ud800","a":NaN}}',
    ],
)
def test_what_is_not_json_in_utf_8_is_an_invalid_request(request_: bytes) -> None:
    error = refusal(request_)
    assert (error.status, error.error) == (400, "Invalid request")
    assert error.message


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"1e400"])
@pytest.mark.parametrize("place", [b'{"userIds":[%b],"notification":{}}', b'{"userIds":["1"],"notification":{"a":%b}}'])
def test_a_number_that_no_client_can_hold_is_refused(number: bytes, place: bytes) -> None:
    assert refusal(place % number).status == 400


@pytest.mark.parametrize("digits", [19, 20, 400, 4_000, 5_000, 100_000])
def test_integers_of_any_length_are_kept_or_refused(digits: int) -> None:
    number = b"7" * digits
    request = b'{"userIds":["1"],"notification":{"n":%b}}' % number
    try:
        found = parse(request, 9)
    except RequestError as error:
        assert error.status == 400
        assert digits > 300, "numbers that fit a double pass"
    else:
        assert found.notification in (b'{"n":%b}' % number, b'{"n": %b}' % number)


@pytest.mark.parametrize("levels", [10, 500, 900, 990, 1_000, 1_023, 1_024, 1_025, 2_000, 10_000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_kept_or_refused(levels: int, opening: bytes, closing: bytes) -> None:
    middle = b"1" if opening == b'{"a":' else b""
    nested = opening * levels + middle + closing * levels
    for request in (
        b'{"userIds":["1"],"notification":{"x":%b}}' % nested,
        b'{"userIds":%b,"notification":{}}' % nested,
        nested,
    ):
        try:
            found = parse(request, 9)
        except RequestError as error:
            assert error.status == 400
        else:
            assert found.notification == b'{"x":%b}' % nested
    if levels <= 500:
        assert parse(b'{"userIds":["1"],"notification":{"x":%b}}' % nested, 9)


@pytest.mark.parametrize("levels", [500, 900, 1_000, 2_000, 100_000])
def test_deep_nesting_beside_half_a_surrogate_is_kept_or_refused(levels: int) -> None:
    request = b'{"userIds":["1"],"notification":{"title":"\\ud83d","x":%b}}' % (b"[" * levels + b"]" * levels)
    try:
        assert parse(request, 9).user_ids == ("1",)
    except RequestError as error:
        assert error.status == 400


# A byte order mark


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    "request_",
    [
        b'{"userIds":["1"],"notification":{ "a" : 1.0 }}',
        b' \n{"userIds":[18446744073709551617],"notification":{"b":[1e2]}}',
        b'{"userIds":["1"],"notification":{"title":"\\ud83d"}}',
        '{"userIds":["א"],"notification":{"title":"\ufeff"}}'.encode(),
    ],
)
def test_a_utf_8_byte_order_mark_before_the_body_is_skipped(request_: bytes) -> None:
    assert parse(BOM + request_, 9) == parse(request_, 9)
    batch = b'{"broadcasts":[%b, %b]}' % (request_, BODY)
    assert parse_batch(BOM + batch, 9) == parse_batch(batch, 9)


def test_a_refusal_behind_a_byte_order_mark_names_the_field_too() -> None:
    assert refusal(BOM + body(userIds=["1", None])).error == "userIds[1] must be a string"
    assert batch_refusal(BOM + b"{}").error == "broadcasts must be an array"


def test_a_byte_order_mark_is_part_of_what_a_key_was_used_for() -> None:
    assert parse(BOM + BODY, 9, "key").digest == digest(BOM + BODY) != digest(BODY)


# Byte for byte


@pytest.mark.parametrize(
    "notification",
    [
        b"{}",
        b'{ "a" : 1.0 , "b":1e2,"c":-0,"d":-0.0, "e": 0.1000000000000000055 }',
        b'{"a":123456789012345678901234567890}',
        b'{"title":"\\u05e9\\ud83d\\ude00\\/\\u0000"}',
        '{"title":"שלום 😀 \u2028"}'.encode(),
        b'{\n\t"title": "x"\r\n}',
        b'{"b":1,"a":2,"b":3}',
        b'{"notification":{"notification":[]},"userIds":null}',
        b'{"a":"}\\"],{"}',
    ],
)
@pytest.mark.parametrize(
    "wrapping", [b'{"userIds":["1"],"notification":%b}', b' {"notification" : %b\n, "x":[{}],"userIds":[1] }\n']
)
def test_the_notification_is_kept_byte_for_byte(notification: bytes, wrapping: bytes) -> None:
    assert parse(wrapping % notification, 9).notification == notification


@pytest.mark.parametrize("title", ["\\ud83d", "\\ude00", "x\\ud800y", "\\ude00\\ud83d"])
def test_half_of_a_surrogate_pair_passes_as_an_escape(title: str) -> None:
    # JSON.stringify writes this for a title that was cut inside an emoji.
    found = parse(f'{{"userIds":["1"],"notification":{{"title":"{title}","n":18446744073709551617}}}}'.encode(), 9)
    assert json.loads(found.notification) == {"title": json.loads(f'"{title}"'), "n": 18446744073709551617}
    found.notification.decode("ascii")


@pytest.mark.parametrize(
    ("request_", "kept"),
    [
        (b'{"userIds":["1"],"notification":{"a":1},"notification":{"a":2}}', b'{"a":2}'),
        (b'{"notification":7,"userIds":["1"],"notification":{"a":2}}', b'{"a":2}'),
        (b'{"userIds":["1"],"notification":{"a":1},"notific\\u0061tion":{"a":2}}', b'{"a":2}'),
        (b'{"userIds":["1"],"notific\\u0061tion":{"a":1}}', b'{"a":1}'),
        (b'{"userIds":["9"],"userIds":["1"],"notification":{}}', b"{}"),
    ],
)
def test_of_a_member_given_twice_the_last_is_validated_and_delivered(request_: bytes, kept: bytes) -> None:
    assert parse(request_, 9) == Broadcast(("1",), 1, kept, None)


def test_a_bad_notification_cannot_hide_behind_a_good_one() -> None:
    assert refusal(b'{"userIds":["1"],"notification":{},"notification":{"title":7}}').status == 400
    assert refusal(b'{"userIds":["1"],"notification":{},"notification":7}').error == "notification is required"


# Generated requests


numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
any_json = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=10),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=10,
)
texts = st.text(max_size=20) | st.dictionaries(st.text(max_size=3), st.text(max_size=5), max_size=3)
notifications = st.fixed_dictionaries(
    {},
    optional={
        "title": texts,
        "body": texts,
        "metadata": st.fixed_dictionaries(
            {}, optional={"priority": st.sampled_from(["low", "normal", "high"]), "url": any_json}
        ),
        "data": any_json,
        "actionKey": any_json,
        "x": any_json,
    },
)


@given(notifications, st.booleans(), st.sampled_from([None, 1]))
def test_any_notification_passes_through(notification: dict[str, Any], escaped: bool, indent: int | None) -> None:
    try:
        raw = json.dumps(notification, ensure_ascii=escaped, indent=indent).encode()
    except UnicodeEncodeError:  # half of a surrogate pair can only be escaped
        raw = json.dumps(notification).encode()
    found = parse(b'{"userIds":["1"],"notification":%b}' % raw, 9)
    assert json.loads(found.notification) == notification
    plain = True
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:
        plain = False
    if plain:
        assert found.notification == raw


def check(request: bytes) -> None:
    try:
        found = parse(request, 5)
    except RequestError as error:
        assert error.status in (400, 413)
        assert orjson.dumps({"error": error.error, "message": error.message})
    else:
        assert isinstance(found, Broadcast)
        assert len(found.user_ids) <= found.requested_users <= 5
        assert isinstance(json.loads(found.notification), dict)


@given(st.binary())
def test_any_bytes_are_a_broadcast_or_refused(request_: bytes) -> None:
    check(request_)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "userIds": st.lists(any_json, max_size=6) | st.lists(numbers | st.text(max_size=5), max_size=6) | any_json,
            "notification": st.dictionaries(st.sampled_from(["title", "body", "metadata", "x"]), any_json) | any_json,
            "ttl": any_json,
        },
    )
)
@example({"userIds": [], "notification": {"title": {"\ud800": 7}}})
@example({"userIds": [], "notification": {"metadata": {"priority": "\ud800"}}})
@example({"userIds": ["\ud800"], "notification": {}})
@example({"userIds": [], "notification": {}, "ttl": 10**400})
def test_any_json_is_a_broadcast_or_refused(document: dict[str, Any]) -> None:
    check(json.dumps(document).encode())


GOOD = (
    '{"userIds":["1",2,3.5,18446744073709551617],"notification":{"title":{"he":"ש","en":"\\ud83d"},"n":1e5},"ttl":60}'
).encode()


@given(
    st.integers(0, len(GOOD)),
    st.integers(0, 5),
    st.binary(max_size=3) | st.sampled_from([b'"', b"{", b"}", b"[", b",", b"\\", b"9"]),
)
def test_any_damage_to_a_request_is_a_broadcast_or_refused(at: int, cut: int, put: bytes) -> None:
    check(GOOD[:at] + put + GOOD[at + cut :])


# Batches


def batch_refusal(request: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse_batch(request, 5)
    assert orjson.dumps({"error": caught.value.error, "message": caught.value.message})
    return caught.value


def test_a_batch_is_its_broadcasts_in_order_each_kept_byte_for_byte() -> None:
    one, two = (
        b'{"userIds":["1"],"notification":{ "a" : 1.0 }}',
        b'{ "notification":{"b":[1e2]},"userIds":[2, "3"],"ttl":5}',
    )
    found = parse_batch(b'{"broadcasts": [%b ,%b]}' % (one, two), 5)
    assert found == [Broadcast(("1",), 1, b'{ "a" : 1.0 }', None), Broadcast(("2", "3"), 2, b'{"b":[1e2]}', 5.0)]
    assert parse_batch(b'{"broadcasts":[]}', 5) == []


def test_a_broadcast_that_is_refused_does_not_affect_the_others_of_its_batch() -> None:
    found = parse_batch(
        b'{"broadcasts":[7,{"userIds":["1"],"notification":{}},{"userIds":["1"]},{"userIds":[1,2,3,4,5,6]}]}', 5
    )
    assert [each.status if isinstance(each, RequestError) else each.user_ids for each in found] == [400, ("1",), 400, 413]


@pytest.mark.parametrize(
    "request_", [b"[]", b"{}", b'{"broadcasts":null}', b'{"broadcasts":{}}', b'{"userIds":[],"notification":{}}']
)
def test_a_batch_without_broadcasts_is_refused(request_: bytes) -> None:
    error = batch_refusal(request_)
    assert (error.status, error.error) == (400, "broadcasts must be an array")


def test_a_batch_is_limited() -> None:
    one = b'{"userIds":[],"notification":{}}'
    assert len(parse_batch(b'{"broadcasts":[%b]}' % b",".join([one] * MAX_BATCH), 5)) == MAX_BATCH
    assert batch_refusal(b'{"broadcasts":[%b]}' % b",".join([one] * (MAX_BATCH + 1))).status == 413


@given(st.binary() | any_json.map(lambda document: json.dumps({"broadcasts": document}).encode()))
@example(b'{"broadcasts":[{"userIds":[],"notification":{"title":"\\ud800"}}]}')
@example(b'{"broadcasts":[{"userIds":[],"notification":{}}],"broadcasts":[]}')
@example(b'{"broadcasts":' + b"[" * 100_000)
@example(b'{"broadcasts":[' + b"[" * 1_000 + b"]" * 1_000 + b"]}")
def test_any_batch_is_broadcasts_and_refusals_or_refused(request_: bytes) -> None:
    try:
        found = parse_batch(request_, 5)
    except RequestError as error:
        assert error.status in (400, 413)
    else:
        assert all(isinstance(each, (Broadcast, RequestError)) for each in found)


# Idempotency keys


BODY = b'{"userIds":["1"],"notification":{}}'


def digest(request: bytes) -> bytes:
    return hashlib.blake2b(request, digest_size=16).digest()


@pytest.mark.parametrize("key", ["a", "0e5ffb10-5be1-4c6c", "a key with spaces", "מפתח", "x" * MAX_KEY_LENGTH, "\xe9"])
def test_a_key_is_any_printable_text(key: str) -> None:
    assert parse(BODY, 9, key) == Broadcast(("1",), 1, b"{}", None, key, digest(BODY))


@pytest.mark.parametrize("key", ["", "x" * (MAX_KEY_LENGTH + 1), "a\tb", "a\n", "\x00", "\x7f", "\x85", "\u2028", "\ud800"])
def test_another_key_is_refused_by_its_name(key: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(BODY, 9, key)
    assert caught.value.status == 400
    assert caught.value.error.startswith("Idempotency-Key must be ")
    assert orjson.dumps({"error": caught.value.error, "message": caught.value.message})
    item = json.dumps({"userIds": ["1"], "notification": {}, "idempotencyKey": key}).encode()
    (found,) = parse_batch(b'{"broadcasts":[%b]}' % item, 5)
    assert isinstance(found, RequestError)
    assert found.error.startswith("idempotencyKey must be ")


@pytest.mark.parametrize("key", [7, 1.5, True, False, [], ["a"], {}])
def test_a_key_in_a_batch_is_a_string(key: Any) -> None:
    item = json.dumps({"userIds": ["1"], "notification": {}, "idempotencyKey": key}).encode()
    (found,) = parse_batch(b'{"broadcasts":[%b]}' % item, 5)
    assert isinstance(found, RequestError)
    assert (found.status, found.error.split(" ")[0]) == (400, "idempotencyKey")


def test_without_a_key_there_is_no_digest() -> None:
    assert (parse(BODY, 9).key, parse(BODY, 9).digest) == (None, b"")
    for item in (BODY, BODY[:-1] + b',"idempotencyKey":null}'):
        (found,) = parse_batch(b'{"broadcasts":[%b]}' % item, 5)
        assert isinstance(found, Broadcast)
        assert (found.key, found.digest) == (None, b"")


def test_a_bad_body_is_reported_before_a_bad_key() -> None:
    with pytest.raises(RequestError) as caught:
        parse(b'{"userIds":["1"]}', 9, "")
    assert caught.value.error == "notification is required"


@pytest.mark.parametrize(
    "other",
    [
        b' {"userIds":["1"],"notification":{}}',
        b'{"userIds":["1"],"notification":{}}\n',
        b'{"notification":{},"userIds":["1"]}',
        b'{"userIds":["1"],"notification":{} }',
        b'{"userIds":["\\u0031"],"notification":{}}',
        b'{"userIds":[1],"notification":{}}',
        b'{"userIds":["1","1"],"notification":{}}',
        b'{"userIds":["1"],"notification":{},"ttl":null}',
        b'{"userIds":["1"],"notification":{},"unknown":1}',
    ],
)
def test_the_digest_is_of_the_request_byte_for_byte(other: bytes) -> None:
    assert parse(BODY, 9, "key").digest == parse(BODY, 9, "another").digest == digest(BODY)
    assert parse(other, 9, "key").digest == digest(other) != digest(BODY)


def test_the_digest_of_a_request_that_is_read_slowly_is_of_its_bytes_too() -> None:
    for request in (
        b'{"userIds":[18446744073709551617],"notification":{}}',
        b'{"userIds":["1"],"notification":{"title":"\\ud800"}}',
    ):
        assert parse(request, 9, "key").digest == digest(request)


def test_each_broadcast_of_a_batch_has_its_own_key_and_the_digest_of_its_own_bytes() -> None:
    items = [
        b'{"userIds":["1"],"notification":{},"idempotencyKey":"a"}',
        b'{ "idempotencyKey" : "b", "userIds":["1"],"notification":{} }',
        b'{"userIds":["1"],"notification":{"n":1e2},"idempotencyKey":"c"}',
    ]
    for chosen in (items, items[::-1], items[1:]):
        found = parse_batch(b'{"broadcasts": [%b ] }' % b" ,\n".join(chosen), 5)
        assert [each.digest for each in found if isinstance(each, Broadcast)] == [digest(item) for item in chosen]
    keys = [each.key for each in parse_batch(b'{"broadcasts":[%b]}' % b",".join(items), 5) if isinstance(each, Broadcast)]
    assert keys == ["a", "b", "c"]


HALF = rb'{"userIds": ["b"], "notification": {"title": "\ud83d"}, "idempotencyKey": "half"}'


def test_a_broadcast_with_half_a_character_leaves_the_others_of_its_batch_as_they_are() -> None:
    good = b'{ "userIds":["a"],  "notification" : {"n": 1.10, "n2":1e2}, "idempotencyKey": "good" }'
    alone = parse_batch(b'{"broadcasts": [%b]}' % good, 5)
    requests = [
        b'{"broadcasts": [%b ,%b]}' % (good, HALF),
        b' {"x": [1, {"broadcasts": []}], "broadcasts" :[ %b\n,%b ] , "y": 2 }\n' % (good, HALF),
        b'{"broadcasts": [7], "broadcasts": [%b,%b], "z": null}' % (good, HALF),
    ]
    for request_ in requests:
        found, half = parse_batch(request_, 5)
        assert [found] == alone
        assert isinstance(half, Broadcast)
        assert json.loads(half.notification) == {"title": "\ud83d"}
        assert [half] == parse_batch(b'{"broadcasts":[%b]}' % HALF, 5)


def test_a_broadcast_that_is_no_object_leaves_the_others_of_its_batch_as_they_are() -> None:
    good = b'{ "userIds":["a"],  "notification" : {"n": 1.10}, "idempotencyKey": "good" }'
    found, refused = parse_batch(b'{"broadcasts": [%b, 7]}' % good, 5)
    assert [found] == parse_batch(b'{"broadcasts": [%b]}' % good, 5)
    assert isinstance(refused, RequestError)
