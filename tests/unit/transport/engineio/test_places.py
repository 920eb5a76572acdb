"""The places of a process: the oldest unauthenticated session makes way for a new one."""

from socket_server.transport.engineio import places as module
from socket_server.transport.engineio.places import Places


class Session:
    def __init__(self, name: int) -> None:
        self.name = name
        self.authenticated = False


class Process:
    """Places, and the sessions that have them."""

    def __init__(self, most: int) -> None:
        self.evicted: list[int] = []
        self.sessions: list[Session] = []
        self.places = Places(most, self._evict)

    def _evict(self, session: object) -> None:
        assert isinstance(session, Session)
        self.evicted.append(session.name)
        self.sessions.remove(session)
        self.places.release(session)

    def open(self, *, authenticated: bool = False, size: int = 0) -> Session:
        session = Session(len(self.sessions) + len(self.evicted))
        self.places.take(session, size)
        self.sessions.append(session)
        if authenticated:
            session.authenticated = True
            self.places.authenticated(session)
        return session


def test_unauthenticated_sessions_have_at_most_nine_tenths_of_the_places() -> None:
    process = Process(10)
    for _ in range(12):
        process.open()
    assert process.evicted == [0, 1, 2]
    assert process.places.unavailable == 0


def test_the_oldest_unauthenticated_session_makes_way_if_all_places_are_taken() -> None:
    process = Process(10)
    first = process.open()
    for _ in range(9):
        process.open(authenticated=True)
    assert process.evicted == []
    process.open()
    assert process.evicted == [first.name]
    assert process.places.unavailable == 9


def test_authenticated_sessions_never_make_way() -> None:
    process = Process(4)
    for _ in range(4):
        process.open(authenticated=True)
    assert process.places.unavailable == 4
    assert process.evicted == []


def test_a_session_whose_authentication_is_still_being_handled_does_not_make_way() -> None:
    process = Process(3)
    first, second = process.open(), process.open()
    first.authenticated = True  # and the server has not been told yet
    process.open()
    assert process.evicted == []
    process.open()
    assert process.evicted == [second.name]


def test_large_handshakes_make_way_earlier() -> None:
    process = Process(100_000)
    size = module.MAX_HANDSHAKE_BYTES // 10
    for _ in range(15):
        process.open(size=size)
    assert len(process.sessions) == 10
    for session in list(process.sessions):
        session.authenticated = True
        process.places.authenticated(session)
        process.places.authenticated(session)
    for _ in range(10):
        process.open(size=size)
    assert len(process.sessions) == 20


def test_a_place_is_free_again_when_its_session_has_ended() -> None:
    process = Process(2)
    for _ in range(10):
        session = process.open(authenticated=True)
        assert process.places.unavailable == 1
        process.places.release(session)
    assert process.places.unavailable == 0
    process = Process(1)
    process.open(size=module.MAX_HANDSHAKE_BYTES + 1)  # a single one may be larger
    assert process.evicted == []


def test_the_oldest_sessions_can_be_closed_for_their_file_descriptors() -> None:
    process = Process(20)
    sessions = [process.open() for _ in range(5)]
    sessions[1].authenticated = True  # and the server has not been told yet
    process.places.evict_oldest(3)
    assert process.evicted == [0, 2]
    process.places.evict_oldest(10)
    assert process.evicted == [0, 2, 3, 4]
    process.places.evict_oldest(10)
    assert process.places.unavailable == 1
