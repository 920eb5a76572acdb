"""The states of an Engine.IO socket, and the table of its transitions.

    OPENING ----> POLLING <--> PROBING --> UPGRADING --> WEBSOCKET --> ENDED
       |                          (also back to POLLING)                ^
       +--------------------------------------> WEBSOCKET               |
                                               UPGRADING --> CLOSING ---+

Source: github.com/socketio/engine.io-protocol, "Upgrade". The table is data: a transition that it does not have is an error
of this server, so what clients send is checked against it first (`allows`).
"""

from collections.abc import Mapping
from enum import Enum, auto


class State(Enum):
    OPENING = auto()  # no transport yet
    POLLING = auto()
    PROBING = auto()  # polling; a WebSocket has connected to take over
    UPGRADING = auto()  # its probe has been answered: the client stops polling, then sends UPGRADE over the WebSocket
    CLOSING = auto()  # closed while upgrading: ends when the upgrade does, so that the client still gets what was sent
    WEBSOCKET = auto()
    ENDED = auto()


class Input(Enum):
    OPEN_POLLING = auto()
    OPEN_WEBSOCKET = auto()
    CONNECT_PROBE = auto()  # a WebSocket connects with the session's id
    PROBE = auto()  # "2probe" arrives over it
    UPGRADE = auto()  # "5" arrives over it
    PROBE_LOST = auto()  # it ends
    CLOSE = auto()  # the server closes the session
    END = auto()  # the transport is lost, or is given up


_S, _I = State, Input

TRANSITIONS: Mapping[State, Mapping[Input, State]] = {
    _S.OPENING: {_I.OPEN_POLLING: _S.POLLING, _I.OPEN_WEBSOCKET: _S.WEBSOCKET, _I.CLOSE: _S.ENDED, _I.END: _S.ENDED},
    _S.POLLING: {_I.CONNECT_PROBE: _S.PROBING, _I.CLOSE: _S.ENDED, _I.END: _S.ENDED},
    _S.PROBING: {_I.PROBE: _S.UPGRADING, _I.PROBE_LOST: _S.POLLING, _I.CLOSE: _S.ENDED, _I.END: _S.ENDED},
    _S.UPGRADING: {_I.UPGRADE: _S.WEBSOCKET, _I.PROBE_LOST: _S.POLLING, _I.CLOSE: _S.CLOSING, _I.END: _S.ENDED},
    _S.CLOSING: {_I.UPGRADE: _S.ENDED, _I.PROBE_LOST: _S.ENDED, _I.END: _S.ENDED},
    _S.WEBSOCKET: {_I.END: _S.ENDED},
    _S.ENDED: {},
}


class InvalidTransitionError(RuntimeError):
    """An input that the state does not have: a fault of this server."""


def allows(state: State, event: Input) -> bool:
    return event in TRANSITIONS[state]


def next_state(state: State, event: Input) -> State:
    """Return the state after an input. Raises InvalidTransitionError."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise InvalidTransitionError(f"{event.name} in state {state.name}") from None
