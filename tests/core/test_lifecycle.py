from __future__ import annotations

from pathlib import Path

import pytest

from agent_conn import TRANSITIONS, ConnectionState, StateError, Transition
from agent_conn._lifecycle import diagram, next_state

pytestmark = pytest.mark.quick

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"


def test_every_state_but_the_first_is_reached_and_every_state_but_the_last_is_left() -> None:
    assert set(TRANSITIONS.values()) == set(ConnectionState) - {ConnectionState.IDLE}
    assert {state for state, _ in TRANSITIONS} == set(ConnectionState) - {ConnectionState.CLOSED}


def test_every_state_leads_to_closed() -> None:
    for start in ConnectionState:
        reached = {start}
        while True:
            further = {TRANSITIONS[pair] for pair in TRANSITIONS if pair[0] in reached} | reached
            if further == reached:
                break
            reached = further
        assert ConnectionState.CLOSED in reached


@pytest.mark.parametrize("state", ConnectionState)
@pytest.mark.parametrize("transition", Transition)
def test_the_table_decides_and_an_illegal_transition_says_so(
    state: ConnectionState, transition: Transition
) -> None:
    following = TRANSITIONS.get((state, transition))
    if following is None:
        opens = transition in {Transition.WAIT, Transition.DIAL}
        told = "opens once, and this one is" if opens else f"{transition.name} does not follow on"
        with pytest.raises(StateError, match=f"{told} {state.name}"):
            next_state(state, transition)
    else:
        assert next_state(state, transition) is following


def test_the_architecture_page_shows_the_table() -> None:
    assert f"```mermaid\n{diagram()}\n```" in PAGE.read_text()
