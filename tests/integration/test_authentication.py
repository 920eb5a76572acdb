"""Authentication of a connection: places, messages, codes and keys (docs/protocol.md, "Authentication")."""

import base64
import contextlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.identity_provider import KEYS, Provider, signed
from tests.integration.conftest import Opens, OpensRaw
from tests.integration.protocol import TRANSPORTS, Client
from tests.servers import SECRET, RunningServer, mint, running, wait_for

MISSING = ("Not authenticated - missing credentials", "missing_credentials")
FORMAT = ("Invalid JWT format", "invalid_format")
INVALID = ("Invalid or expired JWT", "invalid_token")
EXPIRED = ("Invalid or expired JWT", "expired_token")
MISMATCH = ("UserId does not match JWT", "user_mismatch")
TOO_MANY = ("Too many connections", "too_many_connections")
TIMEOUT = ("Authentication timeout", "auth_timeout")

over_both = pytest.mark.parametrize("transport", TRANSPORTS)


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """No leeway, a short time to authenticate, two connections a user, other cookie names, audience and issuer."""
    with running(
        tmp_path_factory.mktemp("strict"),
        JWT_LEEWAY=0,
        AUTH_TIMEOUT=1,
        MAX_CONNECTIONS_PER_USER=2,
        JWT_COOKIE="session_token",
        USER_COOKIE="uid",
        JWT_AUDIENCE="notifications",
        JWT_ISSUER="https://id.example.com",
        JWT_USER_CLAIM="account",
    ) as server:
        yield server


def strict_mint(user_id: Any = "123", lifetime_s: float | None = 3600, **claims: Any) -> str:
    good = {"account": user_id, "aud": "notifications", "iss": "https://id.example.com"} | claims
    return mint(None, lifetime_s=lifetime_s, **{name: value for name, value in good.items() if value is not None})


def unsigned(header: Any, payload: Any, signature: bytes = b"x") -> str:
    parts = [json.dumps(part).encode() for part in (header, payload)] + [signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def by_hand(algorithm: str, payload: Any, secret: str | bytes, **header: Any) -> str:
    """Sign without a library (RFC 7515, appendix A.1): libraries refuse to make some tokens that attackers do make."""
    key = secret.encode() if isinstance(secret, str) else secret
    head = unsigned({"alg": algorithm, **header}, payload).rsplit(".", 1)[0]
    signature = hmac.digest(key, head.encode(), f"sha{algorithm[2:]}")
    return f"{head}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


# Success


@over_both
@pytest.mark.parametrize(
    "auth",
    [
        {"token": mint("123")},
        {"token": mint("123"), "userId": "123"},
        {"token": mint("123"), "userId": 123},
        {"token": mint(123), "userId": "123"},
        {"jwt": mint("123"), "userId": "123"},
        {"token": "", "jwt": mint("123")},
        {"token": None, "jwt": mint("123")},
        {"token": f"bearer {mint('123')}"},
        {"token": f"BEARER {mint('123')}"},
        {"token": f"Bearer {mint('123')}", "userId": "123", "other": {"things": 1}},
        {"token": mint(None, userId="123")},
        {"token": mint(None, sub="123")},
        {"token": mint(None, sub=123)},
        {"token": mint("123", userId="no", sub="no")},
        {"token": mint("123", aud="anyone", iss="anyone")},
        {"token": by_hand("HS384", {"id": "123"}, SECRET)},
        {"token": by_hand("HS512", {"id": "123"}, SECRET)},
    ],
)
def test_the_auth_object_signs_in(shared_server: RunningServer, opens: Opens, transport: str, auth: Any) -> None:
    assert opens(shared_server, transport).sign_in(auth)["userId"] == "123"


def test_a_token_that_has_just_expired_is_taken_within_the_leeway(shared_server: RunningServer, opens: Opens) -> None:
    assert opens(shared_server).sign_in({"token": mint("123", lifetime_s=-3)})["userId"] == "123"


@over_both
def test_auth_success_tells_user_expiry_and_place(shared_server: RunningServer, opens: Opens, transport: str) -> None:
    token = mint("ada", lifetime_s=1000)
    connection = opens(shared_server, transport)
    success = connection.sign_in({"token": token})
    last_id = success.pop("lastId")
    assert last_id.isdigit()
    expires_at = jwt.decode(token, options={"verify_signature": False})["exp"]
    assert success == {"userId": "ada", "expiresAt": expires_at, "recovered": False, "replayed": 0}
    assert int(shared_server.broadcast(["ada"], {}).json()["id"]) > int(last_id)


def test_a_token_without_exp_never_expires(shared_server: RunningServer, opens: Opens) -> None:
    assert opens(shared_server).sign_in({"token": mint("ada", lifetime_s=None)})["expiresAt"] is None


@over_both
@pytest.mark.parametrize(
    "cookie",
    [
        f"jwt={mint('123')}; id=123",
        f"other=1; id=123; jwt=bearer%20{mint('123')}; more=2",
        f"jwt=Bearer%20{mint('123')}; id=123",
        f'jwt="bearer {mint("123")}"; id=123',
        f"jwt={mint('a b')}; id=a%20b",
    ],
)
def test_cookies_sign_in(shared_server: RunningServer, opens: Opens, transport: str, cookie: str) -> None:
    connection = opens(shared_server, transport, headers={"Cookie": cookie})
    connection.connect()
    assert connection.success()["userId"] in ("123", "a b")


@over_both
def test_a_cookie_may_hold_utf_8_as_it_is(shared_server: RunningServer, opens: Opens, transport: str) -> None:
    cookie: Any = f"jwt={mint('משתמש')}; id=משתמש"
    if transport == "polling":
        cookie = cookie.encode()  # this client would send text as Latin-1
    assert opens(shared_server, transport, headers={"Cookie": cookie}).sign_in(None)["userId"] == "משתמש"


@over_both
@pytest.mark.parametrize("prefix", ["Bearer ", "bearer ", "BEARER  "])
def test_the_authorization_header_signs_in(shared_server: RunningServer, opens: Opens, transport: str, prefix: str) -> None:
    connection = opens(shared_server, transport, headers={"Authorization": prefix + mint("123")})
    connection.connect()
    assert connection.success()["userId"] == "123"


@over_both
def test_the_auth_event_signs_in(shared_server: RunningServer, opens: Opens, transport: str) -> None:
    connection = opens(shared_server, transport)
    connection.connect()
    connection.emit("auth", {"userId": "123", "jwt": f"bearer {mint('123')}"})
    assert connection.success()["userId"] == "123"
    shared_server.broadcast(["123"], {"title": "hi"})
    assert connection.event()[:2] == ["notification", {"title": "hi"}]


@over_both
@pytest.mark.parametrize("auth", [None, {}, {"token": ""}, {"token": None}, {"userId": "123"}, {"pid": "x", "offset": "1"}])
def test_an_auth_object_without_a_token_leaves_it_to_later_places(
    shared_server: RunningServer, opens: Opens, transport: str, auth: Any
) -> None:
    connection = opens(shared_server, transport, headers={"Authorization": f"Bearer {mint('header')}"})
    assert connection.sign_in(auth)["userId"] == "header"


# The order of places


def test_the_first_place_present_decides(shared_server: RunningServer, opens: Opens) -> None:
    headers = {"Cookie": f"jwt={mint('cookie')}; id=cookie", "Authorization": f"Bearer {mint('header')}"}
    assert opens(shared_server, headers=headers).sign_in({"token": mint("object")})["userId"] == "object"
    assert opens(shared_server, headers=headers).sign_in({})["userId"] == "cookie"
    del headers["Cookie"]
    assert opens(shared_server, headers=headers).sign_in(None)["userId"] == "header"


@over_both
def test_a_bad_token_is_not_rescued_by_a_later_place(shared_server: RunningServer, opens: Opens, transport: str) -> None:
    good_cookie = f"jwt={mint('123')}; id=123"
    good_header = f"Bearer {mint('123')}"
    connection = opens(shared_server, transport, headers={"Cookie": good_cookie, "Authorization": good_header})
    connection.connect({"token": "bad"})
    assert connection.refusal() == FORMAT
    connection = opens(shared_server, transport, headers={"Cookie": "jwt=bad; id=123", "Authorization": good_header})
    connection.connect()
    assert connection.refusal() == FORMAT


# Failure: every message and code


NOT_JSON_HEADER = "bm90IGpzb24.e30.eA"
BAD_TOKENS = [
    ("abc", FORMAT),
    ("a.b", FORMAT),
    ("a.b.c.d", FORMAT),
    ("not base64!.e30.eA", FORMAT),
    (NOT_JSON_HEADER, FORMAT),
    (unsigned([], {}), FORMAT),
    (f"{mint('123')} trailing", FORMAT),
    ("bearer ", FORMAT),
    ("x" * 20_000, FORMAT),
    (5, FORMAT),
    (["token"], FORMAT),
    ({"a": 1}, FORMAT),
    (True, FORMAT),
    (mint("123", secret="another-secret-that-is-long-enough-0123456789"), INVALID),
    (mint("123")[:-4] + "AAAA", INVALID),
    (unsigned({"alg": "none"}, {"id": "123"}, b""), INVALID),
    (unsigned({"alg": "None"}, {"id": "123"}), INVALID),
    (unsigned({"alg": "RS256"}, {"id": "123"}), INVALID),
    (unsigned({"alg": 5}, {"id": "123"}), INVALID),
    (unsigned({}, {"id": "123"}), INVALID),
    (mint(None), INVALID),
    (mint(""), INVALID),
    (mint({"a": 1}), INVALID),
    (mint(True), INVALID),
    (mint("123", nbf=time.time() + 600), INVALID),
    (mint("123", lifetime_s=None, exp="soon"), INVALID),
    (mint("123", lifetime_s=-60), EXPIRED),
    (mint("123", secret="another-secret-that-is-long-enough-0123456789", lifetime_s=-60), INVALID),
]


@over_both
@pytest.mark.parametrize(("token", "refusal"), BAD_TOKENS, ids=lambda value: str(value)[:24])
def test_a_bad_token_is_refused(
    shared_server: RunningServer, opens: Opens, transport: str, token: Any, refusal: tuple[str, str]
) -> None:
    connection = opens(shared_server, transport)
    connection.connect({"token": token})
    assert connection.refusal() == refusal


@over_both
@pytest.mark.parametrize(("token", "refusal"), BAD_TOKENS[::3], ids=lambda value: str(value)[:24])
def test_a_bad_token_in_an_auth_event_is_refused_too(
    shared_server: RunningServer, opens: Opens, transport: str, token: Any, refusal: tuple[str, str]
) -> None:
    connection = opens(shared_server, transport)
    connection.connect()
    connection.emit("auth", {"userId": "123", "jwt": token})
    assert connection.refusal() == refusal


@over_both
@pytest.mark.parametrize("arguments", [[], [None], ["text"], [{}], [{"userId": "123"}], [[mint("123")]], [mint("123")]])
def test_an_auth_event_without_a_token_is_missing_credentials(
    shared_server: RunningServer, opens: Opens, transport: str, arguments: list[Any]
) -> None:
    connection = opens(shared_server, transport)
    connection.connect()
    connection.emit("auth", *arguments)
    assert connection.refusal() == MISSING


@over_both
@pytest.mark.parametrize("cookie", [f"jwt={mint('123')}", f"jwt={mint('123')}; id="])
def test_a_cookie_without_the_user_is_missing_credentials(
    shared_server: RunningServer, opens: Opens, transport: str, cookie: str
) -> None:
    connection = opens(shared_server, transport, headers={"Cookie": cookie})
    connection.connect()
    assert connection.refusal() == MISSING


@over_both
@pytest.mark.parametrize("user_id", ["456", 456, "", "0123", " 123", True, ["123"], {"id": "123"}, 123.5])
def test_another_user_beside_the_token_is_a_mismatch(
    shared_server: RunningServer, opens: Opens, transport: str, user_id: Any
) -> None:
    connection = opens(shared_server, transport)
    connection.connect({"token": mint("123"), "userId": user_id})
    assert connection.refusal() == MISMATCH


@over_both
def test_another_user_in_the_cookie_is_a_mismatch(shared_server: RunningServer, opens: Opens, transport: str) -> None:
    connection = opens(shared_server, transport, headers={"Cookie": f"jwt={mint('123')}; id=456"})
    connection.connect()
    assert connection.refusal() == MISMATCH


def test_audience_issuer_and_user_claim_are_checked_where_set(strict_server: RunningServer, opens: Opens) -> None:
    assert opens(strict_server).sign_in({"token": strict_mint("good")})["userId"] == "good"
    listed = strict_mint("good", aud=["else", "notifications"])
    assert opens(strict_server).sign_in({"token": listed})["userId"] == "good"
    for claims in ({"aud": "other"}, {"aud": None}, {"iss": "https://evil.example.com"}, {"iss": None}, {"account": None}):
        connection = opens(strict_server)
        connection.connect({"token": strict_mint("good", **({"id": "good"} | claims))})
        assert connection.refusal() == INVALID, claims


@over_both
def test_cookies_may_have_other_names(strict_server: RunningServer, opens: Opens, transport: str) -> None:
    user = f"cookie-{transport}"
    cookie = f"jwt=ignored; id=ignored; session_token=bearer%20{strict_mint(user)}; uid={user}"
    connection = opens(strict_server, transport, headers={"Cookie": cookie})
    connection.connect()
    assert connection.success()["userId"] == user


# Time


def test_who_does_not_authenticate_in_time_is_told_and_disconnected(strict_server: RunningServer, opens: Opens) -> None:
    started = time.monotonic()
    connections = [opens(strict_server, transport) for transport in TRANSPORTS]
    for connection in connections:
        connection.connect()
    assert [connection.refusal() for connection in connections] == [TIMEOUT, TIMEOUT]
    assert 0.9 <= time.monotonic() - started < 3


def test_who_authenticates_in_time_stays(strict_server: RunningServer, opens: Opens) -> None:
    connection = opens(strict_server)
    connection.connect()
    connection.emit("auth", {"userId": "stays", "jwt": strict_mint("stays")})
    connection.success()
    late = opens(strict_server)
    late.connect()
    assert late.refusal() == TIMEOUT  # one timeout later
    connection.pong()


def test_a_connection_ends_when_its_token_expires(strict_server: RunningServer, opens: Opens) -> None:
    connections = [opens(strict_server, transport) for transport in TRANSPORTS]
    token = strict_mint("short", lifetime_s=2)
    expires_at, _ = [connection.sign_in({"token": token})["expiresAt"] for connection in connections]
    assert strict_server.broadcast(["short"], {"n": 1}).json()["totalSockets"] == 2
    assert [connection.event()[1] for connection in connections] == [{"n": 1}, {"n": 1}]
    assert [connection.refusal() for connection in connections] == [EXPIRED, EXPIRED]
    assert 0 <= time.time() - expires_at < 1
    assert strict_server.broadcast(["short"], {}).json()["totalSockets"] == 0


def test_the_leeway_holds_for_live_connections_too(tmp_path: Path, opens: Opens) -> None:
    with running(tmp_path, JWT_LEEWAY=3) as server:
        connection = opens(server)
        # A token's times are whole seconds: of the leeway up to one has gone by already.
        success = connection.sign_in({"token": mint("ada", lifetime_s=0)})
        assert connection.refusal() == EXPIRED
        assert 3 <= time.time() - success["expiresAt"] < 4


def test_a_second_auth_refreshes_the_token(strict_server: RunningServer, opens: Opens) -> None:
    connections = [opens(strict_server, transport) for transport in TRANSPORTS]
    short, fresh = strict_mint("fresh", lifetime_s=2), strict_mint("fresh", lifetime_s=1000)
    for connection in connections:
        first = connection.sign_in({"token": short})
        connection.emit("auth", {"userId": "fresh", "jwt": fresh})
        assert connection.success()["expiresAt"] > first["expiresAt"]
    wait_for(lambda: time.time() > first["expiresAt"] + 0.3, what="the first token's end")
    for connection in connections:
        connection.pong()
    assert strict_server.broadcast(["fresh"], {}).json()["totalSockets"] == 2


def test_a_shorter_token_shortens_the_connection(strict_server: RunningServer, opens: Opens) -> None:
    connection = opens(strict_server)
    connection.sign_in({"token": strict_mint("shorter")})
    connection.emit("auth", {"userId": "shorter", "jwt": strict_mint("shorter", lifetime_s=1)})
    connection.success()
    assert connection.refusal() == EXPIRED


@over_both
def test_a_second_auth_for_another_user_is_a_mismatch(shared_server: RunningServer, opens: Opens, transport: str) -> None:
    connection = opens(shared_server, transport)
    connection.sign_in({"token": mint("ada")})
    connection.emit("auth", {"userId": "ben", "jwt": mint("ben")})
    assert connection.refusal() == MISMATCH
    assert shared_server.broadcast(["ada", "ben"], {}).json()["totalSockets"] == 0


def test_a_second_auth_with_a_bad_token_ends_the_connection(shared_server: RunningServer, opens: Opens) -> None:
    connection = opens(shared_server)
    connection.sign_in({"token": mint("ada")})
    connection.emit("auth", {"userId": "ada", "jwt": mint("ada", lifetime_s=-60)})
    assert connection.refusal() == EXPIRED


@over_both
def test_the_oldest_connection_gives_way_to_the_newest(strict_server: RunningServer, opens: Opens, transport: str) -> None:
    user = f"many-{transport}"
    first, second, third = (opens(strict_server, transport) for _ in range(3))
    for connection in (first, second):
        connection.sign_in({"token": strict_mint(user)})
    third.sign_in({"token": strict_mint(user)})
    assert first.refusal() == TOO_MANY
    assert strict_server.broadcast([user], {"n": 1}).json()["totalSockets"] == 2
    for connection in (second, third):
        assert connection.event()[1] == {"n": 1}


# Unauthenticated connections


@over_both
def test_an_unauthenticated_connection_receives_nothing_and_is_ignored(
    shared_server: RunningServer, opens: Opens, transport: str
) -> None:
    connection = opens(shared_server, transport)
    connection.connect({"userId": "123"})
    connection.emit("notification", {"title": "forged"})
    connection.emit("subscribe", "123")
    connection.emit("auth_success", {"userId": "123"})
    connection.emit("message", {"userIds": ["123"]}, ack=5)
    assert shared_server.broadcast(["123"], {"title": "secret"}).json()["totalSockets"] == 0
    connection.pong()
    assert shared_server.stats()["totalConnections"] == 0


def test_what_a_client_emits_reaches_no_other_client(shared_server: RunningServer, opens: Opens) -> None:
    sender, receiver = opens(shared_server), opens(shared_server)
    sender.sign_in({"token": mint("eve")})
    receiver.sign_in({"token": mint("ada")})
    sender.emit("notification", {"title": "forged"})
    sender.emit("broadcast", {"userIds": ["ada"], "notification": {"title": "forged"}})
    sender.pong()
    receiver.pong()


# Origins


@pytest.mark.parametrize("origin", ["http://evil.example.com", "null", "https://app.example.com", "file://"])
def test_a_foreign_origin_is_refused_before_any_upgrade(
    shared_server: RunningServer, opens_raw: OpensRaw, origin: str
) -> None:
    cookie = f"jwt={mint('123')}; id=123"
    raw = opens_raw(shared_server, headers={"Origin": origin, "Cookie": cookie})
    assert 400 <= raw.status < 500
    assert "upgrade" not in raw.headers
    answer = requests.get(
        f"{shared_server.url}/socket.io/?EIO=4&transport=polling", headers={"Origin": origin, "Cookie": cookie}, timeout=10
    )
    assert 400 <= answer.status_code < 500
    assert "sid" not in answer.text


def test_a_foreign_origin_may_not_use_a_polling_session(shared_server: RunningServer, opens: Opens) -> None:
    polling = opens(shared_server, "polling")
    polling.sign_in({"token": mint("123")})
    url = f"{shared_server.url}/socket.io/?EIO=4&transport=polling&sid={polling.handshake['sid']}"
    assert requests.get(url, headers={"Origin": "http://evil.example.com"}, timeout=10).status_code == 403
    assert requests.post(url, data="1", headers={"Origin": "http://evil.example.com"}, timeout=10).status_code == 403
    polling.pong()


@over_both
def test_an_allowed_origin_is_let_in(shared_server: RunningServer, opens: Opens, transport: str) -> None:
    connection = opens(shared_server, transport, headers={"Origin": "http://app.example.com"})
    assert connection.sign_in({"token": mint("123")})["userId"] == "123"


# Keys


def pem(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_public_key_verifies_its_algorithm_and_no_other(tmp_path: Path, opens: Opens, algorithm: str) -> None:
    public = pem(KEYS[algorithm])
    (tmp_path / "key.pem").write_text(public)
    given = {"RS256": str(tmp_path / "key.pem"), "ES256": public, "EdDSA": public.replace("\n", "\\n")}[algorithm]
    with running(tmp_path, JWT_SECRET="", JWT_PUBLIC_KEY=given) as server:
        assert opens(server).sign_in({"token": signed(algorithm)})["userId"] == "123"
        others = [signed(name) for name in KEYS if name != algorithm]
        # The public key taken for an HMAC secret: the classic confusion of algorithms (RFC 8725 section 2.1).
        others.append(by_hand("HS256", {"id": "123"}, public))
        for token in [*others, mint("123"), unsigned({"alg": "none"}, {"id": "123"}, b"")]:
            connection = opens(server)
            connection.connect({"token": token})
            assert connection.refusal() == INVALID


def test_two_secrets_and_a_public_key_stand_side_by_side(tmp_path: Path, opens: Opens) -> None:
    old, new = SECRET, "the-new-secret-for-tests-that-is-long-0123456789"
    settings = {"JWT_SECRET": f"{new}, {old}", "JWT_PUBLIC_KEY": pem(KEYS["ES256"]), "JWT_ALGORITHMS": "HS256,ES256"}
    with running(tmp_path, **settings) as server:
        assert opens(server).sign_in({"token": signed("ES256", "456")})["userId"] == "456"
        for secret in (old, new):
            assert opens(server).sign_in({"token": mint("123", secret=secret)})["userId"] == "123"
        for token in (mint("123", secret=f"{new}, {old}"), by_hand("HS512", {"id": "1"}, new)):
            connection = opens(server)
            connection.connect({"token": token})
            assert connection.refusal() == INVALID
        connection = opens(server)
        connection.connect({"token": mint("123", secret=old, lifetime_s=-60)})
        assert connection.refusal() == EXPIRED


@pytest.fixture
def provider() -> Iterator[Provider]:
    with contextlib.closing(Provider()) as started:
        yield started


def test_a_jwk_set_follows_a_rotation_and_outlives_its_provider(tmp_path: Path, opens: Opens, provider: Provider) -> None:
    provider.publish(one="RS256", two="EdDSA")
    symmetric = b"a-symmetric-key-that-everybody-can-read-0123456789"
    octets = base64.urlsafe_b64encode(symmetric).rstrip(b"=").decode()
    provider.document["keys"].append({"kty": "oct", "k": octets, "kid": "octets", "alg": "HS256"})
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=provider.url) as server:
        wait_for(lambda: provider.fetched == 1, what="the fetch at start")
        assert opens(server).sign_in({"token": signed("RS256", kid="one")})["userId"] == "123"
        assert opens(server).sign_in({"token": signed("EdDSA", kid="two")})["userId"] == "123"
        assert opens(server).sign_in({"token": signed("RS256")})["userId"] == "123"  # no kid: any key of its kind
        assert provider.fetched == 1  # cached

        connection = opens(server)
        connection.connect({"token": mint("123")})
        assert connection.refusal() == INVALID
        for token in (signed("EdDSA", kid="one"), by_hand("HS256", {"id": "1"}, symmetric, kid="octets")):
            connection = opens(server)
            connection.connect({"token": token})
            assert connection.refusal() == INVALID

        provider.publish(three="ES256", two="EdDSA")

        def signs_in() -> bool:
            with contextlib.suppress(AssertionError):
                return bool(opens(server).sign_in({"token": signed("ES256", kid="three")}))
            return False

        wait_for(signs_in, what="the new key")  # an unknown kid asks the provider, at most every few seconds
        assert opens(server).sign_in({"token": signed("EdDSA", kid="two")})["userId"] == "123"
        assert provider.fetched <= 3

        provider.status = 500
        assert opens(server).sign_in({"token": signed("ES256", kid="three")})["userId"] == "123"
        assert closes_without_a_verdict(opens(server), signed("RS256", kid="unknown"))
        assert server.get("/health").status_code == 200, "the keys that are here still verify tokens"


def closes_without_a_verdict(connection: Client, token: str) -> bool:
    """Return whether the server closes the transport without an answer; the official client then reconnects by itself."""
    connection.connect({"token": token})
    return connection.rest() == []


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_provider_that_is_away_signs_no_user_out(
    tmp_path: Path, opens: Opens, provider: Provider, transport: str
) -> None:
    provider.publish(one="RS256")
    provider.status = 503
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=provider.url, MAX_AUTH_FAILURES_PER_MINUTE=2) as server:
        wait_for(lambda: provider.fetched >= 1, what="the fetch at start")
        for _ in range(4):  # more than the limit: none of them counts as a failed authentication
            assert closes_without_a_verdict(opens(server, transport), signed("RS256", kid="one"))
        health = server.get("/health", headers=server.api_headers)
        assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
        assert "JWT_JWKS_URL" in health.json()["checks"]["keys"]
        assert server.get("/health").json()["checks"]["keys"].startswith("unavailable")
        provider.status = 200
        wait_for(lambda: server.get("/health").status_code == 200, what="the keys, fetched in the background")
        assert opens(server, transport).sign_in({"token": signed("RS256", kid="one")})["userId"] == "123"
