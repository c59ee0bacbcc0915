from __future__ import annotations

from unittest.mock import MagicMock

import pytest

from agent_conn import AgentIdentity, AttributionLevel, ConfigurationError, HeaderNames

pytestmark = pytest.mark.quick


def test_level_is_the_highest_id_present() -> None:
    assert AgentIdentity().level is AttributionLevel.NONE
    assert AgentIdentity(job_id="AJ_1").level is AttributionLevel.JOB
    assert AgentIdentity(job_id="AJ_1", room_id="RM_1").level is AttributionLevel.ROOM
    assert AgentIdentity(agent_id="PA_1").level is AttributionLevel.AGENT


def test_levels_are_ordered() -> None:
    assert sorted(AttributionLevel, reverse=True) == [
        AttributionLevel.AGENT,
        AttributionLevel.ROOM,
        AttributionLevel.JOB,
        AttributionLevel.NONE,
    ]


def test_headers_hold_every_id_present_and_not_only_the_highest() -> None:
    identity = AgentIdentity(job_id="AJ_1", room_id="RM_1", agent_id="PA_1")
    assert identity.headers() == {
        "X-LiveKit-Job-ID": "AJ_1",
        "X-LiveKit-Room-ID": "RM_1",
        "X-LiveKit-Agent-ID": "PA_1",
    }
    assert AgentIdentity(job_id="AJ_1").headers() == {"X-LiveKit-Job-ID": "AJ_1"}


def test_headers_can_be_renamed_for_another_gateway() -> None:
    names = HeaderNames(job_id="X-Acme-Job")
    assert AgentIdentity(job_id="AJ_1").headers(names) == {"X-Acme-Job": "AJ_1"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "not given"),
        (b"PA_1", "is bytes, not str"),
        (7, "is int, not str"),
        pytest.param(MagicMock(), "is MagicMock, not str", id="mock"),
        pytest.param(MagicMock(spec=str), "is MagicMock, not str", id="mock of a str"),
        ("", "is blank"),
        (" \t ", "is blank"),
        ("x" * 257, "is over 256 characters"),
        ("PA_1\r\nX-Evil: 1", "is not printable ASCII"),
        ("PA_\x00", "is not printable ASCII"),
        ("PA_é", "is not printable ASCII"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True], ids=["value", "callable"])
def test_an_id_that_cannot_be_sent_is_left_out_with_its_reason(
    value: object, reason: str, wrapped: bool
) -> None:
    identity = AgentIdentity.best_effort(
        job_id="AJ_1", room_id="RM_1", agent_id=(lambda: value) if wrapped else value
    )
    assert identity.level is AttributionLevel.ROOM
    assert identity.agent_id is None
    assert dict(identity.omitted) == {"agent_id": reason}


def test_the_longest_id_allowed_is_sent() -> None:
    assert AgentIdentity(agent_id="x" * 256).agent_id == "x" * 256


def test_a_callable_that_raises_leaves_its_id_out_with_the_errors_class() -> None:
    def read() -> str:
        raise LookupError("text that is not repeated")

    identity = AgentIdentity.best_effort(job_id=lambda: "AJ_1", agent_id=read)
    assert identity == AgentIdentity(job_id="AJ_1")
    assert identity.omitted["agent_id"] == "raised LookupError"
    assert identity.omitted["room_id"] == "not given"


def test_what_is_no_exception_passes_through_best_effort() -> None:
    def read() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        AgentIdentity.best_effort(agent_id=read)


def test_the_constructor_leaves_out_what_cannot_be_sent_too() -> None:
    identity = AgentIdentity(job_id="AJ_1", agent_id="PA\n1")
    assert identity.level is AttributionLevel.JOB
    assert identity.omitted["agent_id"] == "is not printable ASCII"


def test_a_subclass_of_str_is_sent_as_its_plain_text() -> None:
    class Sid(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "something else"

    identity = AgentIdentity(agent_id=Sid("PA_1"))
    assert identity.agent_id == "PA_1"
    assert type(identity.agent_id) is str


def test_unavailable_gives_one_reason_for_every_id() -> None:
    identity = AgentIdentity.unavailable("gone")
    assert identity.level is AttributionLevel.NONE
    assert dict(identity.omitted) == {"job_id": "gone", "room_id": "gone", "agent_id": "gone"}


@pytest.mark.parametrize("name", ["", "two words", "X-Colon:", "X-é", 7])
def test_a_header_name_that_cannot_be_sent_is_refused_by_field(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"header_names\.room_id"):
        HeaderNames(room_id=name)


def test_two_ids_cannot_share_a_header_name_in_any_case() -> None:
    with pytest.raises(ConfigurationError, match="header_names"):
        HeaderNames(room_id="X-Acme", agent_id="x-acme")


@pytest.mark.parametrize(
    ("known", "current"),
    [
        (AgentIdentity("AJ_1", "RM_1", "PA_1"), True),
        (AgentIdentity(agent_id="PA_1"), True),
        (AgentIdentity(), True),
        (AgentIdentity("AJ_1", "RM_1", "PA_2"), False),
        (AgentIdentity("AJ_1", "RM_2"), False),
        (AgentIdentity("AJ_2", "RM_1", "PA_1"), False),
    ],
)
def test_what_was_sent_is_current_until_an_id_has_another_value(
    known: AgentIdentity, current: bool
) -> None:
    assert AgentIdentity("AJ_1", "RM_1", "PA_1").is_current(known) is current


def test_what_was_sent_is_not_current_once_a_higher_level_is_known() -> None:
    sent = AgentIdentity(room_id="RM_1")
    assert not sent.is_current(AgentIdentity(room_id="RM_1", agent_id="PA_1"))
    assert sent.is_current(AgentIdentity(job_id="AJ_1", room_id="RM_1"))
