"""Two counts of the same usage, compared."""

from __future__ import annotations

import pytest

from agent_conn import AgentIdentity, Usage


def by_caller(usage: tuple[Usage, ...]) -> dict[AgentIdentity, Usage]:
    return {AgentIdentity(each.job_id, each.room_id, each.agent_id): each for each in usage}


def assert_equal_within_a_percent(one: tuple[Usage, ...], other: tuple[Usage, ...]) -> None:
    counted, seen = by_caller(one), by_caller(other)
    assert counted.keys() == seen.keys()
    for caller, used in counted.items():
        assert used.audio_in == pytest.approx(seen[caller].audio_in, rel=0.01)
        assert used.characters == pytest.approx(seen[caller].characters, rel=0.01)
        assert used.audio_out == pytest.approx(seen[caller].audio_out, rel=0.01)
