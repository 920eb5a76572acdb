"""The keys of an identity provider: found by `kid`, fetched seldom, and only those that cannot be misused."""

import gzip
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st

from socket_server.auth.keys import (
    COOLDOWN_S,
    FRESH_S,
    MAX_SET_BYTES,
    RemoteKeySet,
    UnknownKeyError,
    fetch_json,
    public_keys,
)
from socket_server.auth.tokens import Identity, TokenVerifier
from socket_server.config import ASYMMETRIC_ALGORITHMS, HMAC_ALGORITHMS, Settings
from socket_server.errors import AuthenticationError
from tests.unit.auth.jws import base64url, sign
from tests.unit.keypairs import private_key, public_pem

URL = "https://provider.example/jwks"


def jwk(kind: str, kid: str | None = None, number: int = 0, **members: Any) -> dict[str, Any]:
    """Return a public key as a JWK."""
    public = private_key(kind, number).public_key()
    if kind == "RSA":
        data = jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)
    elif kind.startswith("Ed"):
        data = jwt.algorithms.OKPAlgorithm.to_jwk(public, as_dict=True)
    else:
        data = jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True)
    data.pop("key_ops", None)
    return {**data, **({} if kid is None else {"kid": kid}), **members}


def jwks(*keys: Any) -> dict[str, Any]:
    return {"keys": list(keys)}


class Provider:
    """An identity provider whose answers a test changes; counts how often it is asked."""

    def __init__(self, *keys: Any) -> None:
        self.document: Any = jwks(*keys)
        self.fault: Exception | None = None
        self.asked = 0

    def __call__(self, url: str) -> Any:
        assert url == URL
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return self.document


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def key_set(provider: Callable[[str], Any], clock: Clock | None = None) -> RemoteKeySet:
    return RemoteKeySet(URL, fetch=provider, clock=clock or Clock())


def numbers(keys: list[Any]) -> list[Any]:
    return [key.public_numbers() for key in keys]


# Verifying by a set


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [("RSA", "RS256"), ("RSA", "PS512"), ("P-256", "ES256"), ("P-384", "ES384"), ("P-521", "ES512"), ("Ed25519", "EdDSA")],
)
def test_a_token_is_verified_by_the_key_of_its_kid(kind: str, algorithm: str) -> None:
    provider = Provider(jwk(kind, "old", number=1), jwk(kind, "new"))
    settings = Settings(jwt_jwks_url=URL, jwt_algorithms=ASYMMETRIC_ALGORITHMS)
    verifier = TokenVerifier(settings, key_set(provider), clock=lambda: 1_700_000_000)
    token = jwt.encode({"id": "1"}, private_key(kind), algorithm=algorithm, headers={"kid": "new"})
    assert verifier.verify(token) == Identity("1", None)
    for headers in ({"kid": "old"}, {"kid": "nobody's"}):
        wrong = jwt.encode({"id": "1"}, private_key(kind), algorithm=algorithm, headers=headers)
        with pytest.raises(AuthenticationError) as refused:
            verifier.verify(wrong)
        assert refused.value.code == "invalid_token"


def test_a_token_without_a_kid_is_tried_with_every_key_that_fits() -> None:
    provider = Provider(jwk("P-256", "a", number=1), jwk("RSA", "b"), jwk("P-256", "c"))
    verifier = TokenVerifier(Settings(jwt_jwks_url=URL, jwt_algorithms=ASYMMETRIC_ALGORITHMS), key_set(provider))
    assert verifier.verify(jwt.encode({"id": "1"}, private_key("P-256"), algorithm="ES256")) == Identity("1", None)


def test_a_public_key_and_a_set_verify_side_by_side() -> None:
    settings = Settings(jwt_jwks_url=URL, jwt_public_key=public_pem("P-256", 1), jwt_algorithms=ASYMMETRIC_ALGORITHMS)
    verifier = TokenVerifier(settings, key_set(Provider(jwk("P-256", "a"))))
    for number in (0, 1):
        token = jwt.encode({"id": "1"}, private_key("P-256", number), algorithm="ES256")
        assert verifier.verify(token) == Identity("1", None)


def test_a_secret_published_in_a_set_signs_nothing() -> None:
    secret = "published-" * 10
    published = {"kty": "oct", "k": base64url(secret.encode()), "kid": "a", "alg": "HS256"}
    verifier = TokenVerifier(
        Settings(jwt_jwks_url=URL, jwt_algorithms=ASYMMETRIC_ALGORITHMS + HMAC_ALGORITHMS), key_set(Provider(published))
    )
    for header in ({"alg": "HS256", "kid": "a"}, {"alg": "HS256"}, {"alg": "RS256", "kid": "a"}):
        with pytest.raises(AuthenticationError) as refused:
            verifier.verify(sign({"id": "1"}, secret=secret, header=header))
        assert refused.value.code == "invalid_token"
    assert public_keys(jwks(published)) == ()


# Which keys are kept


@pytest.mark.parametrize(
    "useless",
    [
        {"kty": "oct", "k": "AAAA"},
        {"kty": "XYZ"},
        {"kty": None},
        {"kty": 7},
        {"kty": []},
        {"kty": {}},
        {},
        None,
        7,
        "key",
        [],
        {"kty": "RSA"},
        {"kty": "RSA", "n": "AAAA"},
        {"kty": "RSA", "n": 5, "e": "AQAB"},
        {"kty": "RSA", "n": "é", "e": "AQAB"},
        {"kty": "RSA", "n": "", "e": ""},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256", "x": base64url(bytes(32)), "y": base64url(bytes(32))},
        {"kty": "EC", "crv": "P-1", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": [], "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256", "x": None, "y": 7},
        {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
        {"kty": "OKP", "crv": "X25519", "x": base64url(bytes(32))},
        {"kty": "OKP", "crv": "Ed25519"},
        {"kty": "OKP", "crv": None, "x": {}},
    ],
)
def test_a_key_that_cannot_be_used_is_left_out_and_harms_no_other(useless: Any) -> None:
    kept = public_keys(jwks(useless, jwk("P-256", "good"), useless))
    assert [key.key_id for key in kept] == ["good"]


@pytest.mark.parametrize(
    "members",
    [
        {"use": "enc"},
        {"use": None},
        {"use": 7},
        {"alg": "ES384"},
        {"alg": "RS256"},
        {"alg": "HS256"},
        {"alg": "none"},
        {"alg": 7},
    ],
)
def test_a_key_that_is_not_for_this_kind_of_signature_is_not_found(members: dict[str, Any]) -> None:
    keys = key_set(Provider(jwk("P-256", "a", **members)))
    for algorithm in ("ES256", "RS256", "HS256", "none"):
        with pytest.raises(UnknownKeyError):
            keys.find("a", algorithm)


def test_a_key_is_found_only_for_the_algorithm_it_names() -> None:
    keys = key_set(Provider(jwk("RSA", "a", alg="RS384", use="sig")))
    assert numbers(keys.find("a", "RS384")) == [private_key("RSA").public_key().public_numbers()]
    with pytest.raises(UnknownKeyError):
        keys.find("a", "RS256")


@pytest.mark.parametrize(
    ("kind", "good", "bad"), [("P-256", "ES256", "ES384"), ("P-384", "ES384", "ES256"), ("RSA", "PS256", "ES256")]
)
def test_a_key_without_an_algorithm_serves_those_of_its_kind(kind: str, good: str, bad: str) -> None:
    keys = key_set(Provider(jwk(kind, "a")))
    assert keys.find("a", good)
    assert keys.find(None, good)
    with pytest.raises(UnknownKeyError):
        keys.find("a", bad)


@pytest.mark.parametrize("kind", ["RSA", "P-256", "Ed25519"])
def test_a_private_key_published_by_mistake_is_kept_as_a_public_one(kind: str) -> None:
    private = private_key(kind)
    makers = {
        "RSA": jwt.algorithms.RSAAlgorithm,
        "P-256": jwt.algorithms.ECAlgorithm,
        "Ed25519": jwt.algorithms.OKPAlgorithm,
    }
    data = makers[kind].to_jwk(private, as_dict=True)  # type: ignore[attr-defined]
    assert "d" in data
    data.pop("key_ops", None)
    (kept,) = public_keys(jwks(data))
    assert not hasattr(kept.key, "private_numbers")
    assert not hasattr(kept.key, "sign")


@pytest.mark.parametrize("document", [None, [], {}, 7, "keys", {"keys": None}, {"keys": {}}, {"keys": "x"}, [{"keys": []}]])
def test_what_is_no_set_is_a_value_error(document: Any) -> None:
    with pytest.raises(ValueError, match="not a JWK Set"):
        public_keys(document)


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)
key_like = st.fixed_dictionaries(
    {"kty": st.sampled_from(["RSA", "EC", "OKP", "oct"]) | any_json},
    optional={
        "crv": st.sampled_from(["P-256", "P-384", "P-521", "secp256k1", "Ed25519", "Ed448", "X25519"]) | any_json,
        "x": st.binary(max_size=70).map(base64url) | any_json,
        "y": st.binary(max_size=70).map(base64url) | any_json,
        "n": st.binary(max_size=70).map(base64url) | any_json,
        "e": st.just("AQAB") | any_json,
        "alg": st.sampled_from([*ASYMMETRIC_ALGORITHMS, "HS256", "none"]) | any_json,
        "use": st.just("sig") | any_json,
        "kid": any_json,
        "key_ops": any_json,
    },
)


@given(st.lists(key_like | any_json, max_size=4), any_json)
@example([{"kty": []}], None)
def test_whatever_a_provider_publishes_breaks_nothing(entries: list[Any], kid: Any) -> None:
    keys = key_set(Provider(*entries, jwk("P-256", "good")))
    assert private_key("P-256").public_key().public_numbers() in numbers(keys.find("good", "ES256"))
    try:
        keys.find(kid, "RS256")
    except UnknownKeyError:
        pass


@given(any_json)
def test_whatever_json_a_provider_answers_the_search_ends_in_no_key(document: Any) -> None:
    provider = Provider()
    provider.document = document
    with pytest.raises(UnknownKeyError):
        key_set(provider).find("a", "ES256")


# When it is fetched


def test_a_fresh_set_is_fetched_once_for_any_number_of_tokens() -> None:
    provider, clock = Provider(jwk("P-256", "a")), Clock()
    keys = key_set(provider, clock)
    assert provider.asked == 0
    for _ in range(50):
        keys.find("a", "ES256")
        clock.now += 1
    assert provider.asked == 1


def test_a_set_that_has_grown_old_is_fetched_again() -> None:
    provider, clock = Provider(jwk("P-256", "a")), Clock()
    keys = key_set(provider, clock)
    keys.find("a", "ES256")
    provider.document = jwks(jwk("P-256", "b", number=1))
    clock.now += FRESH_S - 1
    keys.find("a", "ES256")
    assert provider.asked == 1
    clock.now += 1
    with pytest.raises(UnknownKeyError):
        keys.find("a", "ES256")  # withdrawn by its provider
    assert provider.asked == 2
    assert keys.find("b", "ES256")


def test_an_unknown_kid_refreshes_the_set() -> None:
    provider, clock = Provider(jwk("P-256", "a")), Clock()
    keys = key_set(provider, clock)
    keys.find("a", "ES256")
    provider.document = jwks(jwk("P-256", "a"), jwk("P-256", "b", number=1))
    clock.now += COOLDOWN_S
    assert numbers(keys.find("b", "ES256")) == [private_key("P-256", 1).public_key().public_numbers()]
    assert provider.asked == 2


def test_strangers_with_unknown_kids_do_not_make_it_ask_more_than_once_a_cooldown() -> None:
    provider, clock = Provider(jwk("P-256", "a")), Clock()
    keys = key_set(provider, clock)
    keys.find("a", "ES256")
    asked_before = provider.asked
    for number in range(100):
        with pytest.raises(UnknownKeyError):
            keys.find(f"stranger-{number}", "ES256")
        clock.now += COOLDOWN_S / 20
    assert provider.asked - asked_before <= 5
    assert keys.find("a", "ES256")


@pytest.mark.parametrize(
    "fault", [requests.ConnectionError("down"), requests.Timeout("slow"), requests.HTTPError("500"), ValueError("no JSON")]
)
def test_a_provider_that_is_down_costs_nobody_a_token_whose_key_is_here(fault: Exception) -> None:
    provider, clock = Provider(jwk("P-256", "a")), Clock()
    keys = key_set(provider, clock)
    keys.find("a", "ES256")
    provider.fault = fault
    clock.now += FRESH_S + 1
    for _ in range(3):
        assert keys.find("a", "ES256")
        with pytest.raises(UnknownKeyError):
            keys.find("b", "ES256")
    assert provider.asked == 2, "one attempt a cooldown, also while it is down"
    provider.fault, provider.document = None, jwks(jwk("P-256", "b"))
    clock.now += COOLDOWN_S
    assert keys.find("b", "ES256")


def test_an_answer_that_is_no_set_does_not_cost_the_keys_that_are_here() -> None:
    provider, clock = Provider(jwk("P-256", "a")), Clock()
    keys = key_set(provider, clock)
    keys.find("a", "ES256")
    provider.document = {"error": "maintenance"}
    clock.now += FRESH_S + 1
    assert keys.find("a", "ES256")


def test_many_who_need_a_key_at_once_share_one_fetch() -> None:
    asked = []
    answering = threading.Event()

    def slow(_: str) -> Any:
        asked.append(1)
        answering.wait(10)
        return jwks(jwk("P-256", "a"))

    keys = RemoteKeySet(URL, fetch=slow)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(keys.find("a", "ES256"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    assert found == []
    answering.set()
    for thread in threads:
        thread.join(10)
    assert len(found) == 20
    assert all(found)
    assert len(asked) == 1


def test_who_has_a_key_here_does_not_wait_for_a_fetch_under_way() -> None:
    clock, fetching, answering = Clock(), threading.Event(), threading.Event()
    first = [True]

    def slow_the_second_time(_: str) -> Any:
        if not first.pop():
            fetching.set()
            answering.wait(10)
        first.append(False)
        return jwks(jwk("P-256", "a"))

    keys = key_set(slow_the_second_time, clock)
    keys.find("a", "ES256")
    clock.now += FRESH_S + 1
    waiting = threading.Thread(target=lambda: keys.find("a", "ES256"))
    waiting.start()
    try:
        assert fetching.wait(10)
        started = time.monotonic()
        assert keys.find("a", "ES256")
        assert time.monotonic() - started < 5
        assert waiting.is_alive()
    finally:
        answering.set()
        waiting.join(10)


# Over HTTP


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the path says."""

    good: bytes = b""

    def do_GET(self) -> None:
        answer: Callable[[], None] = getattr(self, "answer_" + self.path.strip("/"))
        answer()

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", headers.pop("length", str(len(body))))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def answer_good(self) -> None:
        self.reply(self.good, Content_Type="application/jwk-set+json")

    def answer_zipped(self) -> None:
        self.reply(gzip.compress(self.good), Content_Encoding="gzip")

    def answer_large(self) -> None:
        self.reply(b'{"keys": [' + b" " * MAX_SET_BYTES + b"]}")

    def answer_bomb(self) -> None:
        self.reply(gzip.compress(b'{"keys": [' + b" " * (20 * MAX_SET_BYTES) + b"]}"), Content_Encoding="gzip")

    def answer_empty(self) -> None:
        self.reply(b"")

    def answer_html(self) -> None:
        self.reply(b"<html>maintenance</html>")

    def answer_binary(self) -> None:
        self.reply(b"\xff\xfe\x00\xd8")

    def answer_deep(self) -> None:
        self.reply(b"[" * 200_000)

    def answer_error(self) -> None:
        self.reply(self.good, 500)

    def answer_missing(self) -> None:
        self.reply(b"{}", 404)

    def answer_truncated(self) -> None:
        self.reply(self.good[:20], length=str(len(self.good)))

    def answer_badlyzipped(self) -> None:
        self.reply(b"this was never compressed", Content_Encoding="gzip")

    def answer_badchunks(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"not a chunk size\r\n")

    def answer_loop(self) -> None:
        self.reply(b"", 302, Location="/loop")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def provider_url() -> Iterator[str]:
    """A real HTTP server on this machine."""
    _Handler.good = json.dumps(jwks(jwk("P-256", "a"))).encode()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NO_PROXY", "127.0.0.1")
            yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("path", ["good", "zipped"])
def test_a_set_is_fetched_over_http(provider_url: str, path: str) -> None:
    assert fetch_json(f"{provider_url}/{path}") == jwks(jwk("P-256", "a"))
    assert RemoteKeySet(f"{provider_url}/{path}").find("a", "ES256")


BAD_ANSWERS = [
    "large",
    "bomb",
    "empty",
    "html",
    "binary",
    "deep",
    "error",
    "missing",
    "truncated",
    "badlyzipped",
    "badchunks",
    "loop",
]


@pytest.mark.parametrize("path", BAD_ANSWERS)
def test_a_bad_answer_is_one_of_the_two_errors_promised(provider_url: str, path: str) -> None:
    with pytest.raises((requests.RequestException, ValueError)):
        fetch_json(f"{provider_url}/{path}")


@pytest.mark.parametrize("path", BAD_ANSWERS)
def test_a_provider_with_a_bad_answer_is_as_good_as_down(provider_url: str, path: str) -> None:
    clock = Clock()
    answers = iter([f"{provider_url}/good", f"{provider_url}/{path}"])
    keys = RemoteKeySet(provider_url, fetch=lambda _: fetch_json(next(answers)), clock=clock)
    assert keys.find("a", "ES256")
    clock.now += FRESH_S + 1
    assert keys.find("a", "ES256")


def test_a_provider_that_nobody_runs_is_an_unknown_key(provider_url: str) -> None:
    with pytest.raises(UnknownKeyError):
        RemoteKeySet("http://127.0.0.1:9/jwks").find("a", "ES256")
