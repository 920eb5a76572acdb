"""Tokens: which are valid, and the code of each refusal."""

# ruff: noqa: PT017 - what comes may be refused or not, which pytest.raises cannot say

import json
import math
from typing import Any

import jwt
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from socket_server.auth.tokens import MAX_TOKEN_CHARS, Identity, TokenVerifier, mint, numeric_date, user_id_text
from socket_server.config import HMAC_ALGORITHMS, Settings, algorithms_of_pem
from socket_server.errors import AuthenticationError, ConfigError
from tests.unit.auth.jws import OTHER_SECRET, SECRET, base64url, sign, unbase64url
from tests.unit.keypairs import private_key, public_pem

NOW = 1_700_000_000
LATER = NOW + 3_600
MESSAGES = {
    "invalid_format": "Invalid JWT format",
    "invalid_token": "Invalid or expired JWT",
    "expired_token": "Invalid or expired JWT",
}


def verifier(**settings: Any) -> TokenVerifier:
    if not settings.keys() & {"jwt_secrets", "jwt_public_key"}:
        settings["jwt_secrets"] = (SECRET,)
    if "jwt_algorithms" not in settings:
        of_secret = HMAC_ALGORITHMS if settings.get("jwt_secrets") else ()
        of_key = algorithms_of_pem(pem) if (pem := settings.get("jwt_public_key")) else ()
        settings["jwt_algorithms"] = of_secret + of_key
    return TokenVerifier(Settings(**settings), clock=lambda: NOW)


def outcome(token: str, **settings: Any) -> Identity | str:
    """Return the identity, or the code of the refusal, whose message must be the contract's."""
    try:
        return verifier(**settings).verify(token)
    except AuthenticationError as error:
        assert error.message == MESSAGES[error.code]
        return error.code


# Good tokens


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_token_signed_with_the_secret_speaks_for_its_user(algorithm: str) -> None:
    assert outcome(sign({"id": "123", "exp": LATER}, alg=algorithm)) == Identity("123", LATER)


@pytest.mark.parametrize("secret", [SECRET, OTHER_SECRET])
def test_while_a_secret_is_rotated_both_verify(secret: str) -> None:
    assert outcome(sign({"id": "1"}, secret=secret), jwt_secrets=(SECRET, OTHER_SECRET)) == Identity("1", None)


def test_an_expired_token_of_an_older_secret_is_expired_not_invalid() -> None:
    token = sign({"id": "1", "exp": NOW - 60}, secret=OTHER_SECRET)
    assert outcome(token, jwt_secrets=(SECRET, OTHER_SECRET)) == "expired_token"


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        ("RSA", "RS256"),
        ("RSA", "RS384"),
        ("RSA", "RS512"),
        ("RSA", "PS256"),
        ("RSA", "PS384"),
        ("RSA", "PS512"),
        ("P-256", "ES256"),
        ("P-384", "ES384"),
        ("P-521", "ES512"),
        ("Ed25519", "EdDSA"),
        ("Ed448", "EdDSA"),
    ],
)
def test_a_token_signed_with_the_private_key_verifies_with_the_public_one(kind: str, algorithm: str) -> None:
    token = jwt.encode({"id": "123", "exp": LATER}, private_key(kind), algorithm=algorithm)
    assert outcome(token, jwt_public_key=public_pem(kind)) == Identity("123", LATER)
    assert outcome(token, jwt_public_key=public_pem(kind, 1)) == "invalid_token"


def test_where_both_a_secret_and_a_key_are_set_the_algorithm_picks() -> None:
    both = {"jwt_secrets": (SECRET,), "jwt_public_key": public_pem("P-256")}
    assert outcome(sign({"id": "1"}), **both) == Identity("1", None)
    assert outcome(jwt.encode({"id": "2"}, private_key("P-256"), algorithm="ES256"), **both) == Identity("2", None)


# Wrong keys and algorithms


def test_another_secret_is_refused() -> None:
    assert outcome(sign({"id": "1"}, secret=OTHER_SECRET)) == "invalid_token"


@pytest.mark.parametrize("kind", ["RSA", "P-256", "Ed25519"])
@pytest.mark.parametrize("with_secret", [False, True])
def test_the_public_key_is_never_taken_for_a_secret(kind: str, with_secret: bool) -> None:
    pem = public_pem(kind)
    secrets = (OTHER_SECRET,) if with_secret else ()
    for text in (pem, pem.strip(), pem.replace("\n", "\\n")):
        for algorithm in HMAC_ALGORITHMS:
            forged = sign({"id": "1"}, secret=text, alg=algorithm)
            assert outcome(forged, jwt_public_key=pem, jwt_secrets=secrets) == "invalid_token"
            # Not even if the allow-list is wrong.
            wrongly = {"jwt_algorithms": ("RS256", "ES256", "EdDSA", *HMAC_ALGORITHMS)}
            assert outcome(forged, jwt_public_key=pem, jwt_secrets=secrets, **wrongly) == "invalid_token"


@pytest.mark.parametrize("secret", [public_pem("RSA"), '{"kty":"oct","k":"c2VjcmV0"}', "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"])
def test_a_secret_that_is_a_key_of_another_kind_stops_the_start(secret: str) -> None:
    with pytest.raises(ConfigError, match="JWT_SECRET is no HMAC secret"):
        verifier(jwt_secrets=(SECRET, secret))


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", "hs256", "HS256 ", "HS1", None, 7, ["HS256"], {}])
@pytest.mark.parametrize("signed", [True, False])
def test_an_algorithm_that_is_not_on_the_list_is_refused(name: Any, signed: bool) -> None:
    token = sign({"id": "1"}, header={"alg": name})
    if not signed:
        token = token.rpartition(".")[0] + "."
    assert outcome(token) == "invalid_token"
    assert outcome(token, jwt_public_key=public_pem("P-256")) == "invalid_token"


def test_a_header_without_an_algorithm_is_refused() -> None:
    assert outcome(sign({"id": "1"}, header={"typ": "JWT"})) == "invalid_token"


def test_an_algorithm_left_out_of_the_allow_list_is_refused_with_the_right_key() -> None:
    assert outcome(sign({"id": "1"}, alg="HS256"), jwt_algorithms=("HS512",)) == "invalid_token"
    assert outcome(sign({"id": "1"}, alg="HS512"), jwt_algorithms=("HS512",)) == Identity("1", None)


def test_an_algorithm_of_another_kind_of_key_is_refused() -> None:
    pem = public_pem("P-256")
    for kind, algorithm in (("RSA", "RS256"), ("P-384", "ES384"), ("Ed25519", "EdDSA")):
        token = jwt.encode({"id": "1"}, private_key(kind), algorithm=algorithm)
        assert outcome(token, jwt_public_key=pem) == "invalid_token"
        assert outcome(token, jwt_public_key=pem, jwt_algorithms=("ES256", algorithm)) == "invalid_token"


def test_the_hash_of_the_header_is_the_one_that_counts() -> None:
    head, body, _ = sign({"id": "1"}, alg="HS256").split(".")
    _, _, other = sign({"id": "1"}, alg="HS512", header={"alg": "HS256", "typ": "JWT"}).split(".")
    assert outcome(f"{head}.{body}.{other}") == "invalid_token"


def test_an_unknown_critical_extension_is_refused() -> None:
    header = {"alg": "HS256", "crit": ["exp2"], "exp2": 1}  # RFC 7515 section 4.1.11
    assert outcome(sign({"id": "1"}, header=header)) == "invalid_token"


def test_a_key_that_the_token_brings_along_is_not_used() -> None:
    stranger = private_key("P-256", 1)
    jwk = jwt.algorithms.ECAlgorithm.to_jwk(stranger.public_key(), as_dict=True)
    token = jwt.encode({"id": "1"}, stranger, algorithm="ES256", headers={"jwk": jwk, "jku": "https://evil.example"})
    assert outcome(token, jwt_public_key=public_pem("P-256")) == "invalid_token"


def test_an_encrypted_token_is_no_format_of_ours() -> None:
    assert outcome("eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.a.b.c.d") == "invalid_format"


# Form


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "abc",
        "a.b",
        "a.b.c.d",
        "..",
        ".b.c",
        "a..c",
        "{}.{}.{}",
        "a b.c.d",
        "not.base64!.x",
        "ä.b.c",
        base64url(b"[]") + ".e30.x",
        base64url(b"7") + ".e30.x",
        base64url(b"null") + ".e30.x",
        base64url(b'{"alg":') + ".e30.x",
        base64url(b"\xff\xfe") + ".e30.x",
        base64url(b"[" * 9_000) + ".e30.x",
        base64url(b'{"a":' * 2_000) + ".e30.x",
        base64url(b'{"alg":' + b"1" * 5_000 + b"}") + ".e30.x",
    ],
)
def test_what_is_not_three_parts_with_a_json_header_is_an_invalid_format(text: str) -> None:
    assert outcome(text) == "invalid_format"


@pytest.mark.parametrize("change", [lambda token: token + "\n", lambda token: " " + token, lambda token: token + "="])
def test_nothing_may_stand_around_a_token(change: Any) -> None:
    assert outcome(change(sign({"id": "1"}))) == "invalid_format"


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_part_of_a_length_that_base64url_cannot_have_is_an_invalid_format(part: int) -> None:
    parts = sign({"id": "1"}).split(".")
    parts[part] = "a" * 5  # four characters are three bytes; the fifth is none
    assert outcome(".".join(parts)) == "invalid_format"


def test_a_token_longer_than_any_provider_makes_is_refused_unread() -> None:
    fits = sign({"id": "1", "x": "y" * 10_000})
    assert len(fits) < MAX_TOKEN_CHARS
    assert outcome(fits) == Identity("1", None)
    assert outcome(sign({"id": "1", "x": "y" * MAX_TOKEN_CHARS})) == "invalid_format"


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"7", b"null", b'"id"', b"{", b"\xff", b"[" * 5_000, b'{"id":' + b"1" * 5_000 + b"}"]
)
def test_a_signed_payload_that_is_no_object_of_claims_is_an_invalid_token(payload: bytes) -> None:
    expected = "invalid_format" if not payload else "invalid_token"  # an empty part is no part
    assert outcome(sign(payload)) == expected


# Times


@pytest.mark.parametrize("past", [NOW - 10, NOW - 3_600, 0, -1, -1e9, -(10**30), NOW - 10.5])
def test_an_expired_token_is_refused_as_expired(past: float) -> None:
    assert outcome(sign({"id": "1", "exp": past})) == "expired_token"


def test_the_leeway_holds_for_the_expiry() -> None:
    assert outcome(sign({"id": "1", "exp": NOW - 9})) == Identity("1", NOW - 9)
    assert outcome(sign({"id": "1", "exp": NOW - 1}), jwt_leeway_s=0) == "expired_token"
    assert outcome(sign({"id": "1", "exp": NOW}), jwt_leeway_s=0) == "expired_token"  # "on or after", RFC 7519, 4.1.4
    assert outcome(sign({"id": "1", "exp": NOW + 1}), jwt_leeway_s=0) == Identity("1", NOW + 1)


def test_an_expired_token_with_a_bad_signature_is_invalid_not_expired() -> None:
    assert outcome(sign({"id": "1", "exp": NOW - 60}, secret=OTHER_SECRET)) == "invalid_token"


def test_a_token_that_is_not_valid_yet_is_invalid() -> None:
    assert outcome(sign({"id": "1", "nbf": NOW + 11})) == "invalid_token"
    assert outcome(sign({"id": "1", "nbf": NOW + 10})) == Identity("1", None)
    assert outcome(sign({"id": "1", "nbf": NOW + 1}), jwt_leeway_s=0) == "invalid_token"
    assert outcome(sign({"id": "1", "nbf": NOW - 1.5}), jwt_leeway_s=0) == Identity("1", None)


def test_an_expired_token_that_is_also_not_valid_yet_is_refused() -> None:
    assert outcome(sign({"id": "1", "exp": NOW - 60, "nbf": NOW + 60})) in ("expired_token", "invalid_token")


def test_a_fractional_expiry_counts_and_is_told_in_whole_seconds() -> None:
    assert outcome(sign({"id": "1", "exp": LATER + 0.75})) == Identity("1", LATER)


@pytest.mark.parametrize("claim", ["exp", "nbf"])
@pytest.mark.parametrize("value", ["1700003600", "soon", "", True, False, [], {}, [LATER], math.inf, -math.inf, math.nan])
def test_a_time_that_is_no_number_is_invalid(claim: str, value: Any) -> None:
    assert outcome(sign({"id": "1", claim: value})) == "invalid_token"


@pytest.mark.parametrize("claim", ["exp", "nbf"])
def test_a_time_of_null_is_invalid_and_no_eternal_token(claim: str) -> None:
    assert outcome(sign({"id": "1", claim: None})) == "invalid_token"


@pytest.mark.parametrize("literal", [b"1e999", b"-1e999", b"1" + b"0" * 5_000])
def test_a_number_beyond_all_numbers_is_invalid(literal: bytes) -> None:
    assert outcome(sign(b'{"id":"1","exp":%b}' % literal)) == "invalid_token"


@pytest.mark.parametrize(
    "expiry",
    [2**53, 2**63, 2**64, 10**18, 10**30, 1e300, 10**400],
    ids=lambda expiry: f"{len(str(int(expiry)))}-digits-{type(expiry).__name__}",
)
def test_an_expiry_that_no_clock_holds_is_refused_or_can_be_told_to_the_client(expiry: float) -> None:
    found = outcome(sign({"id": "1", "exp": expiry}))
    if isinstance(found, Identity):
        assert json.loads(orjson.dumps({"expiresAt": found.expires_at})) == {"expiresAt": found.expires_at}
        assert float(found.expires_at or 0) > NOW
    else:
        assert found == "invalid_token"


def test_the_time_of_issue_is_not_judged() -> None:
    assert outcome(sign({"id": "1", "iat": NOW + 3_600})) == Identity("1", None)
    assert outcome(sign({"id": "1", "iat": "yesterday"})) == Identity("1", None)


# Audience and issuer


@pytest.mark.parametrize("audience", ["app", ["app"], ["other", "app"]])
def test_the_right_audience_passes(audience: Any) -> None:
    assert outcome(sign({"id": "1", "aud": audience}), jwt_audience="app") == Identity("1", None)


@pytest.mark.parametrize(
    "claims", [{}, {"aud": "other"}, {"aud": ["other"]}, {"aud": []}, {"aud": 7}, {"aud": None}, {"aud": {}}]
)
def test_a_wrong_audience_is_invalid_where_one_is_set(claims: dict[str, Any]) -> None:
    assert outcome(sign({"id": "1", **claims}), jwt_audience="app") == "invalid_token"
    assert outcome(sign({"id": "1", **claims})) == Identity("1", None)


@pytest.mark.parametrize("claims", [{}, {"iss": "other"}, {"iss": ["us"]}, {"iss": 7}, {"iss": None}, {"iss": "us "}])
def test_a_wrong_issuer_is_invalid_where_one_is_set(claims: dict[str, Any]) -> None:
    assert outcome(sign({"id": "1", **claims}), jwt_issuer="us") == "invalid_token"
    assert outcome(sign({"id": "1", **claims})) == Identity("1", None)


def test_the_right_issuer_passes() -> None:
    assert outcome(sign({"id": "1", "iss": "us"}), jwt_issuer="us") == Identity("1", None)


# Whose it is


@pytest.mark.parametrize(
    ("claims", "user_id"),
    [
        ({"id": "1", "userId": "2", "sub": "3"}, "1"),
        ({"sub": "3", "userId": "2"}, "2"),
        ({"sub": "3"}, "3"),
        ({"id": None, "sub": "3"}, "3"),
        ({"id": 123}, "123"),
        ({"sub": 123}, "123"),
        ({"id": 0}, "0"),
        ({"id": -5}, "-5"),
        ({"id": 7.0}, "7"),
        ({"id": 2**70}, str(2**70)),
        ({"id": "007"}, "007"),
        ({"id": "משתמש"}, "משתמש"),
        ({"id": " 1 "}, " 1 "),
    ],
)
def test_the_user_is_the_first_claim_that_is_present_as_a_string(claims: dict[str, Any], user_id: str) -> None:
    assert outcome(sign(claims)) == Identity(user_id, None)


@pytest.mark.parametrize("value", ["", True, False, [], ["1"], {}, {"id": "1"}, 1.5, math.inf, math.nan])
def test_a_user_claim_that_is_no_id_is_invalid(value: Any) -> None:
    assert outcome(sign({"id": value})) == "invalid_token"


def test_a_token_without_a_user_is_invalid() -> None:
    assert outcome(sign({"name": "ada"})) == "invalid_token"


def test_the_configured_claim_is_the_only_one_looked_at() -> None:
    custom = {"jwt_user_claims": ("https://example.com/uid",)}
    assert outcome(sign({"https://example.com/uid": 9, "id": "1"}), **custom) == Identity("9", None)
    assert outcome(sign({"id": "1", "sub": "2"}), **custom) == "invalid_token"


@pytest.mark.parametrize("value", ["1", 1, 1.0])
def test_ids_are_compared_as_strings(value: Any) -> None:
    assert user_id_text(value) == "1"


@pytest.mark.parametrize("value", [None, True, [], {}, 1.5, math.inf, math.nan, b"1"])
def test_what_is_no_id_has_no_text(value: Any) -> None:
    assert user_id_text(value) is None


def test_a_date_is_whole_seconds() -> None:
    assert numeric_date(1.9) == 1


# Minting


def test_a_minted_token_verifies_under_the_same_settings() -> None:
    settings = Settings(
        jwt_secrets=(SECRET,),
        jwt_algorithms=("HS512",),
        jwt_audience="app",
        jwt_issuer="us",
        jwt_user_claims=("uid",),
    )
    token = mint("123", SECRET, settings, 60, NOW + 0.9)
    assert TokenVerifier(settings, clock=lambda: NOW).verify(token) == Identity("123", NOW + 60)


# Whatever comes


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)
base64url_text = st.text("ABCXYZabcxyz0129-_", max_size=30)


def refused(token: str) -> bool:
    return isinstance(outcome(token), str)


@given(st.text())
def test_random_text_is_refused(text: str) -> None:
    assert refused(text)


@given(st.lists(base64url_text, min_size=3, max_size=3).map(".".join))
def test_three_random_parts_are_refused(text: str) -> None:
    assert refused(text)


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=40))
def test_three_encoded_random_parts_are_refused(head: bytes, body: bytes, signature: bytes) -> None:
    assert refused(".".join(map(base64url, (head, body, signature))))


GOOD = sign({"id": "123", "exp": LATER})


@given(
    st.integers(0, len(GOOD) - 1),
    st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=é\n"),
    st.sampled_from(["replace", "insert", "delete"]),
)
def test_a_token_that_was_touched_does_not_verify(at: int, character: str, how: str) -> None:
    after = GOOD[at:] if how == "insert" else GOOD[at + 1 :]
    touched = GOOD[:at] + ("" if how == "delete" else character) + after
    found = outcome(touched)
    if isinstance(found, Identity):
        # Only the unused last bits of the signature's base64url may differ: then nothing was touched.
        assert touched.rpartition(".")[0] == GOOD.rpartition(".")[0]
        assert unbase64url(touched.rpartition(".")[2]) == unbase64url(GOOD.rpartition(".")[2])


@given(st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jwk", "cty", "zip"]), any_json))
@example({"alg": "HS256", "crit": "exp"})
@example({"alg": "HS256", "crit": [{}]})
@example({"alg": "HS256", "b64": False})
@example({"alg": "HS256", "b64": False, "crit": ["b64"]})
@example({"alg": "HS256", "kid": ["a"]})
@example({"alg": "HS256", "typ": {}})
def test_any_header_without_a_good_signature_is_refused(header: dict[str, Any]) -> None:
    assert refused(sign({"id": "1"}, header={"alg": "HS256", **header}, secret=OTHER_SECRET))


@given(
    st.dictionaries(
        st.sampled_from(["id", "userId", "sub", "exp", "nbf", "iat", "aud", "iss", "jti", "x"]),
        any_json | st.integers(NOW, 2**40) | st.integers() | st.text(max_size=5),
    )
)
@example({"id": "\ud800"})
@example({"id": "1", "exp": 2**64})
@example({"id": 1e308})
def test_whatever_is_signed_is_refused_or_an_identity_that_can_be_told_to_the_client(claims: dict[str, Any]) -> None:
    for settings in ({}, {"jwt_audience": "a", "jwt_issuer": "i"}):
        found = outcome(sign(claims), **settings)
        if isinstance(found, Identity):
            assert found.user_id
            assert orjson.dumps({"userId": found.user_id, "expiresAt": found.expires_at})


@given(any_json)
def test_whatever_json_is_signed_as_claims_never_breaks_the_verifier(claims: Any) -> None:
    assert isinstance(outcome(sign(claims)), (str, Identity))
