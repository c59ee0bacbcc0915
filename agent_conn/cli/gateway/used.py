"""What each caller used, as lines at the gateway's end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent_conn import Usage
from agent_conn.cli.plain import plain

MOST_CALLERS = 20


def used_lines(usage: Sequence[Usage]) -> Iterator[str]:
    """Give a line for each of the last callers, and one that counts the others."""
    shown = usage[-MOST_CALLERS:]
    for used in shown:
        ids = {"agent": used.agent_id, "room": used.room_id, "job": used.job_id}
        named = " ".join(f"{name}={plain(value)}" for name, value in ids.items() if value)
        yield (
            f"{named or 'callers without ids'}: heard {used.audio_in:.1f} s, "
            f"spoke {used.audio_out:.1f} s of {used.characters} characters"
        )
    if len(usage) > len(shown):
        yield f"{len(usage) - len(shown)} callers before them are not shown"
