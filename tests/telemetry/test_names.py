"""The tables of the page on telemetry name what is exported, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.exported import Exported
from helpers.support import Line

from agent_conn import ConnectionPool, HandshakeRejected, ReplayBuffer, reconnect
from agent_conn.gateway import Reject

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "telemetry.md"


def tabled(header: str) -> set[str]:
    """The first name in code of each row of the page's table with ``header``."""
    _, _, table = PAGE.read_text().partition(f"| {header} |")
    rows = table.partition("\n\n")[0].splitlines()[2:]
    return {re.findall(r"`([^`]+)`", row)[0] for row in rows}


async def test_the_page_names_every_span_and_metric(line: Line, exported: Exported) -> None:
    line.gateway.inject(Reject(401))
    async with ConnectionPool(lambda: line.dial(**exported.options())) as pool:
        exported.telemetry.observe_pool(pool)
        with pytest.raises(HandshakeRejected):
            await pool.acquire()
        async with pool.acquire():
            pass
    line.gateway.inject(Reject(503))
    loop = reconnect(lambda: line.dial(**exported.options()), random=lambda: 0.0)
    async with loop:
        async for _ in loop:
            break
    buffer = ReplayBuffer[bytes](max_bytes=1, on_give_up=exported.telemetry.given_up)
    buffer.put_nowait(b"1", size=1)
    buffer.put_nowait(b"2", size=1)
    assert {span.name for span in exported.all_spans()} == tabled("span")
    assert {name for name, _ in exported.points()} == tabled("metric")
