"""The transition table of Engine.IO sockets."""

import itertools

import pytest

from socket_server.transport.engineio.states import TRANSITIONS, Input, InvalidTransitionError, State, allows, next_state


def test_every_state_but_the_last_can_end() -> None:
    assert set(TRANSITIONS) == set(State)
    for state in set(State) - {State.ENDED}:
        assert next_state(state, Input.END) is State.ENDED
    assert TRANSITIONS[State.ENDED] == {}


def test_every_state_can_be_reached() -> None:
    reached, found = {State.OPENING}, {State.OPENING}
    while found:
        found = {after for state in found for after in TRANSITIONS[state].values()} - reached
        reached |= found
    assert reached == set(State)


def test_a_session_upgrades_by_a_probe_and_an_upgrade_packet() -> None:
    state = State.OPENING
    for event in (Input.OPEN_POLLING, Input.CONNECT_PROBE, Input.PROBE, Input.UPGRADE):
        assert allows(state, event)
        state = next_state(state, event)
    assert state is State.WEBSOCKET


@pytest.mark.parametrize("before", [Input.CONNECT_PROBE, Input.PROBE])
def test_polling_goes_on_after_a_lost_probe(before: Input) -> None:
    state = next_state(State.POLLING, Input.CONNECT_PROBE)
    if before is Input.PROBE:
        state = next_state(state, Input.PROBE)
    assert next_state(state, Input.PROBE_LOST) is State.POLLING


def test_a_transition_outside_the_table_is_an_error_of_the_server() -> None:
    for state, event in itertools.product(State, Input):
        if not allows(state, event):
            with pytest.raises(InvalidTransitionError, match=f"{event.name} in state {state.name}"):
                next_state(state, event)
