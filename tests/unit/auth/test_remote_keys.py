"""The keys of an identity provider: found by `kid`, fetched rarely, and only those that are safe to use."""

import contextlib
import gzip
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st

from socket_server.auth import remote_keys
from socket_server.auth.jwk_set import public_keys
from socket_server.auth.remote_keys import (
    COOLDOWN_S,
    MAX_SET_BYTES,
    RemoteKeySet,
    UnknownKeyError,
    fetch_json,
)
from socket_server.auth.tokens import Identity, TokenVerifier
from socket_server.config import ASYMMETRIC_ALGORITHMS, HMAC_ALGORITHMS, Settings
from socket_server.errors import AuthenticationError, KeysUnavailable
from tests.servers import ROOT, wait_for
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
    with contextlib.suppress(UnknownKeyError):
        keys.find(kid, "RS256")


@given(any_json)
def test_a_token_cannot_be_judged_while_the_provider_answers_anything_but_a_set(document: Any) -> None:
    provider = Provider()
    provider.document = document
    with pytest.raises((UnknownKeyError, KeysUnavailable)):
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


def test_a_key_that_the_provider_withdrew_is_unknown_after_the_next_refresh() -> None:
    provider, clock = Provider(jwk("P-256", "a")), Clock()
    keys = key_set(provider, clock)
    keys.find("a", "ES256")
    provider.document = jwks(jwk("P-256", "b", number=1))
    assert keys.find("a", "ES256")
    assert keys.refresh()
    with pytest.raises(UnknownKeyError):
        keys.find("a", "ES256")
    assert keys.find("b", "ES256")


def test_an_unknown_kid_refreshes_the_set() -> None:
    provider, clock = Provider(jwk("P-256", "a")), Clock()
    keys = key_set(provider, clock)
    keys.find("a", "ES256")
    provider.document = jwks(jwk("P-256", "a"), jwk("P-256", "b", number=1))
    clock.now += COOLDOWN_S
    assert numbers(keys.find("b", "ES256")) == [private_key("P-256", 1).public_key().public_numbers()]
    assert provider.asked == 2


def test_unknown_kids_cause_at_most_one_fetch_in_each_cooldown() -> None:
    provider, clock = Provider(jwk("P-256", "a")), Clock()
    keys = key_set(provider, clock)
    keys.find("a", "ES256")
    asked_before = provider.asked
    for number in range(100):
        clock.now += COOLDOWN_S / 20
        with pytest.raises((UnknownKeyError, KeysUnavailable)):
            keys.find(f"unknown-{number}", "ES256")
    assert provider.asked - asked_before <= 5
    assert keys.find("a", "ES256")


def test_an_unknown_kid_is_refused_only_by_a_set_that_was_fetched_for_it() -> None:
    """During the cooldown the provider may have published the key already: that is not an invalid token."""
    provider, clock = Provider(jwk("P-256", "a")), Clock()
    keys = key_set(provider, clock)
    keys.find("a", "ES256")
    provider.document = jwks(jwk("P-256", "b"))
    clock.now += COOLDOWN_S / 2
    with pytest.raises(KeysUnavailable):
        keys.find("b", "ES256")
    clock.now += COOLDOWN_S / 2
    assert keys.find("b", "ES256")
    clock.now += COOLDOWN_S
    with pytest.raises(UnknownKeyError):
        keys.find("c", "ES256")


FAULTS = [requests.ConnectionError("down"), requests.Timeout("slow"), requests.HTTPError("503"), ValueError("no JSON")]


@pytest.mark.parametrize("fault", FAULTS)
def test_tokens_of_known_keys_stay_valid_while_the_provider_is_down(fault: Exception) -> None:
    provider, clock = Provider(jwk("P-256", "a")), Clock()
    keys = key_set(provider, clock)
    keys.find("a", "ES256")
    provider.fault = fault
    clock.now += COOLDOWN_S
    for _ in range(3):
        assert keys.find("a", "ES256")
        with pytest.raises(KeysUnavailable):
            keys.find("b", "ES256")
    assert provider.asked == 2, "one attempt in each cooldown, also while it is down"
    keys.check()
    provider.fault, provider.document = None, jwks(jwk("P-256", "b"))
    clock.now += COOLDOWN_S
    assert keys.find("b", "ES256")


@pytest.mark.parametrize("fault", FAULTS)
def test_no_token_is_invalid_before_the_first_set_was_fetched(fault: Exception) -> None:
    provider, clock = Provider(jwk("P-256", "a")), Clock()
    provider.fault = fault
    keys = key_set(provider, clock)
    verifier = TokenVerifier(Settings(jwt_jwks_url=URL, jwt_algorithms=ASYMMETRIC_ALGORITHMS), keys)
    token = jwt.encode({"id": "1"}, private_key("P-256"), algorithm="ES256", headers={"kid": "a"})
    with pytest.raises(KeysUnavailable):
        verifier.verify(token)
    with pytest.raises(KeysUnavailable, match="JWT_JWKS_URL"):
        keys.check()
    provider.fault = None
    clock.now += COOLDOWN_S
    assert verifier.verify(token) == Identity("1", None)
    keys.check()


def test_a_configured_public_key_verifies_while_the_provider_is_down() -> None:
    provider = Provider()
    provider.fault = requests.ConnectionError("down")
    settings = Settings(jwt_jwks_url=URL, jwt_public_key=public_pem("P-256"), jwt_algorithms=ASYMMETRIC_ALGORITHMS)
    verifier = TokenVerifier(settings, key_set(provider))
    token = jwt.encode({"id": "1"}, private_key("P-256"), algorithm="ES256")
    assert verifier.verify(token) == Identity("1", None)
    assert provider.asked == 0


def test_a_set_is_fetched_in_the_background_until_that_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_keys, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(remote_keys, "REFRESH_S", 0.02)
    provider = Provider(jwk("P-256", "a"))
    provider.fault = requests.ConnectionError("down")
    keys = RemoteKeySet(URL, fetch=provider)
    keys.start()
    try:
        wait_for(lambda: provider.asked >= 3, what="attempts after a failure")
        provider.fault = None
        wait_for(lambda: not fails(keys.check), what="the first set")
        assert keys.find("a", "ES256")
        provider.document = jwks(jwk("P-256", "b"))
        wait_for(lambda: not fails(lambda: keys.find("b", "ES256")), what="the rotated key, by the refresh")
    finally:
        keys.stop()


def fails(call: Callable[[], object]) -> bool:
    """Return whether a call raises KeysUnavailable or UnknownKeyError."""
    try:
        call()
    except (KeysUnavailable, UnknownKeyError):
        return True
    return False


def test_an_answer_that_is_no_set_does_not_cost_the_keys_that_are_here() -> None:
    provider, clock = Provider(jwk("P-256", "a")), Clock()
    keys = key_set(provider, clock)
    keys.find("a", "ES256")
    provider.document = {"error": "maintenance"}
    clock.now += COOLDOWN_S
    assert not keys.refresh()
    assert keys.find("a", "ES256")


def test_callers_that_need_a_key_at_once_share_one_fetch() -> None:
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


def test_a_known_key_is_found_at_once_during_a_fetch() -> None:
    fetching, answering = threading.Event(), threading.Event()
    asked = []

    def slow_the_second_time(_: str) -> Any:
        asked.append(1)
        if len(asked) > 1:
            fetching.set()
            answering.wait(10)
        return jwks(jwk("P-256", "a"))

    keys = key_set(slow_the_second_time)
    keys.find("a", "ES256")
    refreshing = threading.Thread(target=keys.refresh)
    refreshing.start()
    try:
        assert fetching.wait(10)
        assert keys.find("a", "ES256")
        assert refreshing.is_alive()
    finally:
        answering.set()
        refreshing.join(10)


# Over HTTP


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the path says."""

    good: bytes = b""
    authorization: str | None = None  # of the last request

    def do_GET(self) -> None:
        type(self).authorization = self.headers["Authorization"]
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

    def answer_moved(self) -> None:
        self.reply(b"", 301, Location="good")

    def answer_elsewhere(self) -> None:
        self.reply(b"", 302, Location=f"http://localhost:{self.server.server_address[1]}/good")

    def answer_otherport(self) -> None:
        self.reply(b"", 302, Location="http://127.0.0.1:9/good")

    def answer_otherscheme(self) -> None:
        self.reply(b"", 302, Location=f"https://127.0.0.1:{self.server.server_address[1]}/good")

    def answer_file(self) -> None:
        self.reply(b"", 302, Location="file:///etc/passwd")

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


@pytest.mark.parametrize("path", ["good", "zipped", "moved"])
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
    "elsewhere",
    "otherport",
    "otherscheme",
    "file",
]


@pytest.mark.parametrize("path", BAD_ANSWERS)
def test_a_bad_answer_is_one_of_the_two_errors_promised(provider_url: str, path: str) -> None:
    with pytest.raises((requests.RequestException, ValueError)):
        fetch_json(f"{provider_url}/{path}")


@pytest.mark.parametrize("path", BAD_ANSWERS)
def test_a_bad_answer_counts_as_no_answer(provider_url: str, path: str) -> None:
    clock = Clock()
    answers = iter([f"{provider_url}/good", f"{provider_url}/{path}"])
    keys = RemoteKeySet(provider_url, fetch=lambda _: fetch_json(next(answers)), clock=clock)
    assert keys.find("a", "ES256")
    clock.now += COOLDOWN_S
    assert not keys.refresh()
    assert keys.find("a", "ES256")


def test_a_token_cannot_be_judged_if_no_provider_listens() -> None:
    with pytest.raises(KeysUnavailable):
        RemoteKeySet("http://127.0.0.1:9/jwks").find("a", "ES256")


def test_credentials_of_the_home_directory_are_not_sent(
    provider_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login admin password secret")
    monkeypatch.setenv("NETRC", str(netrc))
    _Handler.authorization = None
    fetch_json(f"{provider_url}/good")
    assert _Handler.authorization is None


SLOW_HEAD = """
from gevent import monkey
monkey.patch_all()
import socket, sys, threading, time
import gevent, requests
from socket_server.auth import remote_keys
remote_keys.FETCH_TIMEOUT_S = 0.5
listener = socket.create_server(("127.0.0.1", 0))

def trickle():
    client, _ = listener.accept()
    for byte in b"HTTP/1.1 200 OK" + 1_000 * b" ":
        client.sendall(bytes((byte,)))
        time.sleep(0.1)

threading.Thread(target=trickle, daemon=True).start()
began = time.monotonic()
try:
    remote_keys.fetch_json("http://127.0.0.1:%d/" % listener.getsockname()[1])
except requests.Timeout:
    print(time.monotonic() - began)
"""


def test_one_deadline_covers_a_response_head_that_trickles_in() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SLOW_HEAD],
        cwd=ROOT,
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert 0.4 < float(done.stdout) < 5, done.stderr
