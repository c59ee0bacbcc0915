"""Who calls: the ids that an inference gateway bills and debugs by."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import cast

from agent_conn.errors import ConfigurationError

MAX_ID_LENGTH = 256

NOT_GIVEN = "not given"
"""Why an id that nobody gave is left out."""

_IDS = ("job_id", "room_id", "agent_id")

_TOKEN_CHARACTERS = frozenset(
    "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)


def is_header_name(name: object) -> bool:
    """Whether ``name`` is an HTTP field name (a token of RFC 9110, section 5.6.2)."""
    return isinstance(name, str) and bool(name) and _TOKEN_CHARACTERS.issuperset(name)


def is_printable_ascii(text: str) -> bool:
    """Whether ``text`` can go into a header as it is: no control, no byte over 126."""
    return text.isascii() and text.isprintable()


class AttributionLevel(IntEnum):
    """How closely a connection's usage can be attributed; higher is closer."""

    NONE = 0
    JOB = 1
    ROOM = 2
    AGENT = 3


@dataclass(frozen=True, slots=True)
class HeaderNames:
    """The request headers that carry the ids, by default those of LiveKit's gateway.

    Raises:
        ConfigurationError: a name cannot be an HTTP field name (RFC 9110, section 5.1), or two
            names are alike without regard to case.
    """

    job_id: str = "X-LiveKit-Job-ID"
    room_id: str = "X-LiveKit-Room-ID"
    agent_id: str = "X-LiveKit-Agent-ID"
    session_id: str | None = "X-LiveKit-Session-ID"
    """None sends no session id."""

    def __post_init__(self) -> None:
        for item in fields(self):
            name = getattr(self, item.name)
            if not is_header_name(name) and (item.name, name) != ("session_id", None):
                raise ConfigurationError(f"header_names.{item.name} must be an HTTP field name")
        if len({name.lower() for name in self.all()}) < len(self.all()):
            raise ConfigurationError("header_names must give each id a name of its own")

    def all(self) -> tuple[str, ...]:
        """Every name: job, room, agent and, unless it is None, session."""
        ids = (self.job_id, self.room_id, self.agent_id)
        return ids if self.session_id is None else (*ids, self.session_id)


DEFAULT_HEADER_NAMES = HeaderNames()


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """The ids known of a caller: its job, its room's sid and its agent's participant sid.

    An id that cannot be sent is left out, and ``omitted`` tells why: it is not a ``str``,
    blank, over 256 characters or not printable ASCII. Making one never raises: a missing id
    never fails the call.
    """

    job_id: str | None = None
    room_id: str | None = None
    agent_id: str | None = None
    omitted: dict[str, str] = field(init=False, repr=False, compare=False)
    """The reason for each id that is left out, by field name."""

    def __post_init__(self) -> None:
        reasons: dict[str, str] = {}
        for name in _IDS:
            value = getattr(self, name)
            reason = _unfit(value)
            if reason is not None:
                reasons[name] = reason
                object.__setattr__(self, name, None)
            elif type(value) is not str:
                object.__setattr__(self, name, str.__str__(value))
        object.__setattr__(self, "omitted", reasons)

    @classmethod
    def best_effort(
        cls, *, job_id: object = None, room_id: object = None, agent_id: object = None
    ) -> AgentIdentity:
        """Make an identity of whatever can be had now.

        Each argument is an id or a callable that gives one. A callable that raises any
        ``Exception`` leaves its id out. Never raises.
        """
        raised: dict[str, str] = {}
        identity = cls(
            _read("job_id", job_id, raised),
            _read("room_id", room_id, raised),
            _read("agent_id", agent_id, raised),
        )
        if raised:
            identity.omitted.update(raised)
        return identity

    @classmethod
    def unavailable(cls, reason: str) -> AgentIdentity:
        """An identity without ids, each left out for one reason."""
        identity = cls()
        identity.omitted.update(dict.fromkeys(_IDS, reason))
        return identity

    @property
    def level(self) -> AttributionLevel:
        """The level of the highest id present."""
        if self.agent_id is not None:
            return AttributionLevel.AGENT
        if self.room_id is not None:
            return AttributionLevel.ROOM
        if self.job_id is not None:
            return AttributionLevel.JOB
        return AttributionLevel.NONE

    def headers(self, names: HeaderNames = DEFAULT_HEADER_NAMES) -> dict[str, str]:
        """Headers for every id present, not only the highest."""
        pairs = (
            (names.job_id, self.job_id),
            (names.room_id, self.room_id),
            (names.agent_id, self.agent_id),
        )
        return {name: value for name, value in pairs if value is not None}

    def is_current(self, known: AgentIdentity) -> bool:
        """Whether what was sent as this identity still holds, where ``known`` is what holds now.

        It does while no id has another value and the level is no higher. An id that is not
        known now takes nothing away.
        """
        pairs = ((getattr(self, name), getattr(known, name)) for name in _IDS)
        same = all(sent == now for sent, now in pairs if None not in (sent, now))
        return same and known.level <= self.level


IdentitySource = AgentIdentity | Callable[[], AgentIdentity]
"""The ids of a caller, or what gives them when it is asked."""


def _read(name: str, source: object, raised: dict[str, str]) -> str | None:
    """The value of ``source``, or None, with the reason, where it raises.

    It is not checked yet: making the identity does that.
    """
    try:
        return cast("str | None", source() if callable(source) else source)
    except Exception as error:
        raised[name] = f"raised {type(error).__name__}"
        return None


def _unfit(value: object) -> str | None:
    """Why ``value`` cannot be sent as an id, or None where it can."""
    if value is None:
        return NOT_GIVEN
    # Not isinstance: a mock made with spec=str passes that.
    if not issubclass(type(value), str):
        return f"is {type(value).__name__}, not str"
    text = str.__str__(value)
    if not text.strip():
        return "is blank"
    if len(text) > MAX_ID_LENGTH:
        return f"is over {MAX_ID_LENGTH} characters"
    return None if is_printable_ascii(text) else "is not printable ASCII"


def read_identity(source: IdentitySource | None) -> AgentIdentity:
    """The identity that is known now. Never raises: a missing id never fails the call."""
    if source is None:
        return AgentIdentity()
    if isinstance(source, AgentIdentity):
        return source
    try:
        identity: object = source()
    except Exception as error:
        return AgentIdentity.unavailable(f"identity raised {type(error).__name__}")
    if isinstance(identity, AgentIdentity):
        return identity
    if inspect.iscoroutine(identity):
        identity.close()
    return AgentIdentity.unavailable(f"identity gave {type(identity).__name__}")
