"""What the probe prints for a person."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from agent_conn import ConnectTimeout
from agent_conn.cli.plain import plain_lines
from agent_conn.cli.probe.findings import (
    Attempt,
    Certificate,
    Failure,
    Findings,
    Outcome,
    Refusal,
    Step,
    Target,
    Tls,
)
from agent_conn.cli.probe.page import print_page
from agent_conn.cli.probe.status_line import LINE_SECONDS, StatusLine
from agent_conn.cli.probe.waterfall import milliseconds, place_bars

NOW = datetime(2026, 11, 22, tzinfo=UTC)
HOSTILE = "a\x1b]0;title\x07[red]b[/nope]\u202ec\r"
TARGET = Target(
    shown_url="wss://gateway.example/v1/stt",
    url_source=None,
    own_gateway=False,
    credentials=None,
    mints=False,
    attribution="NONE",
    secure=True,
    loopback=False,
)


def page(findings: Findings, *, width: int = 80, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    print_page(Console(file=file, width=width, markup=False, emoji=False), findings, NOW)
    file.flush()
    return raw.getvalue().decode(encoding)


def opened(**seconds: float) -> Attempt:
    steps = {Step(name): length for name, length in seconds.items()}
    certificate = Certificate(HOSTILE, HOSTILE, (HOSTILE, "long." * 60), NOW, NOW)
    tls = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", certificate, verified=False, refusal=HOSTILE)
    return Attempt(Outcome.OPEN, steps, sum(seconds.values()), ("[::1]:443",), HOSTILE, tls)


def stalled(step: Step, after: float) -> Attempt:
    failure = Failure(step, after, ConnectTimeout(), HOSTILE, Refusal(body=HOSTILE))
    return Attempt(Outcome.REJECTED, {Step.TCP: 0.1}, after, failure=failure)


def test_nothing_from_outside_acts_on_the_terminal() -> None:
    shown = page(Findings(TARGET, 2, [opened(tcp=0.1), stalled(Step.TLS, 1.0)]))
    assert not any(character in shown for character in "\x1b\x07\r\u202e")
    assert r"a\x1b]0;title\x07[red]b[/nope]\u202ec" in shown.replace("\n", "")


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("count", [1, 3])
def test_the_page_fits_the_terminal(width: int, count: int) -> None:
    attempts = [opened(dns=0.02, tcp=0.08, tls=0.16, upgrade=0.09, first_message=0.3)] * count
    lines = page(Findings(TARGET, count, attempts), width=width).splitlines()
    bars = [line for line in lines if "\u2501" in line]
    assert len(bars) == 5
    # Times are never cut, so a narrow terminal may get what is wider than it is.
    assert all(len(line) <= width for line in lines if width >= 80)
    assert all(line == line.rstrip() for line in lines)


def test_an_encoding_without_bars_gets_other_ones() -> None:
    shown = page(Findings(TARGET, 1, [stalled(Step.TLS, 1.0)]), encoding="ascii")
    assert "=" in shown
    assert shown.isascii()


def test_a_step_that_stalled_stands_in_the_waterfall_and_is_marked() -> None:
    lines = page(Findings(TARGET, 1, [stalled(Step.UPGRADE, 9.99)])).splitlines()
    (row,) = [line for line in lines if line.strip().startswith("upgrade")]
    assert "9.99 s" in row
    assert row.endswith("\u2717")


def test_a_probe_that_was_ended_before_its_first_connection_says_so() -> None:
    shown = page(Findings(TARGET, 3, [], interrupted=True))
    assert "interrupted after 0 of 3" in shown


@pytest.mark.parametrize(
    ("lengths", "bars"),
    [
        ([1.0, 1.0, 2.0], [(0, 5), (5, 5), (10, 10)]),
        ([0.0, 1.0], [(0, 1), (0, 20)]),
        ([1.0, 0.0], [(0, 20), (19, 1)]),
        ([0.0], [(0, 1)]),
        ([], []),
    ],
)
def test_a_bar_begins_where_the_last_one_ended_and_is_never_invisible(
    lengths: list[float], bars: list[tuple[int, int]]
) -> None:
    assert place_bars(lengths, 20) == bars


def test_times_are_in_milliseconds_up_to_a_second() -> None:
    assert milliseconds(0.00123) == "1.2 ms"
    assert milliseconds(2.5) == "2.50 s"


def test_the_ends_of_lines_stay() -> None:
    assert plain_lines("a\r\nb\tc") == "a\nb\\tc"


def test_a_line_tells_of_a_long_run_where_there_is_no_terminal() -> None:
    now = [0.0]
    told = io.StringIO()
    with StatusLine(Console(file=told), 9, clock=lambda: now[0]) as report:
        report.done(1)
        now[0] = LINE_SECONDS
        report.done(2)
        report.done(3)
    assert told.getvalue() == "probing: 2 of 9\n"


def test_a_terminal_gets_a_bar_that_is_taken_away_again() -> None:
    told = io.StringIO()
    with StatusLine(Console(file=told, force_terminal=True), 9) as report:
        report.done(4)
    assert "/9" in told.getvalue()
    assert told.getvalue().endswith("\x1b[2K")
