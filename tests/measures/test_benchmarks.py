"""The one command of the benchmarks, its results, and the documentation's figures."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import endings, predial, recovery
from benchmarks.far import ROOT, far_process, reach
from benchmarks.line import missing, open_line
from benchmarks.measurement import Step
from benchmarks.peers import NOT_INSTALLED, OURS, PEERS, installed
from benchmarks.picture import COLOURS, draw, pictures
from benchmarks.render import BEGIN, END, as_figures, as_text, put_into
from benchmarks.results import Column, Curves, Result, Run, Target, from_json

FOUND = {"TCP connect": [20.0], OURS: [21.0], "aiohttp": [61.0]}


async def run(*command: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.timeout(180)
async def test_one_command_measures_and_writes_a_table_json_and_a_plot(tmp_path: Path) -> None:
    status, out, err = await run(
        *(sys.executable, "-m", "benchmarks", "--quick", "--loop", "uvloop"),
        *("--only", "messages", "--out", str(tmp_path)),
    )
    assert (status, "message path" in err) == (0, True), err
    done = from_json((tmp_path / "results.json").read_text(encoding="utf-8"))
    (result,) = done.results
    assert (done.quick, result.name) == (True, "messages")
    assert done.machine["event loop"] == "uvloop"
    assert as_text(result) in out
    assert set(result.rows) == set(PEERS)
    for name in {OURS, "aiohttp"}:
        assert all(isinstance(cell, float) and cell > 0 for cell in result.rows[name])
    for name in set(PEERS) - set(installed()):
        assert result.rows[name] == [NOT_INSTALLED] * len(result.columns)
    assert ET.parse(tmp_path / "messages.svg").getroot().tag.endswith("svg")
    assert "python -m benchmarks --only messages" in (tmp_path / "results.md").read_text("utf-8")


async def test_an_answer_that_nobody_waits_for_is_not_taken_for_another() -> None:
    with far_process() as port:
        async with reach("127.0.0.1", port, 0.0) as far:
            left = asyncio.create_task(far.ask("holding", sockets=0))
            for _ in range(5):  # Turns of the event loop in which it is sent.
                await asyncio.sleep(0)
            left.cancel()
            await asyncio.wait({left})
            assert left.cancelled()
            assert await far.ask("certificate") == ""


def test_a_line_that_cannot_be_had_is_not_measured_and_misses_nothing() -> None:
    result = predial.combine(
        [(Step({"rounds": 1}, 0.02), None), (Step({"rounds": 1}, 0.08), FOUND)]
    )
    assert result.rows[OURS] == [None, 21.0]
    assert "not measured" in as_text(result)
    assert [target.holds for target in result.targets[:2]] == [None, None]


def test_a_peer_that_is_not_installed_keeps_its_row() -> None:
    result = predial.combine([(Step({"rounds": 1}), FOUND)])
    assert result.rows["websockets"] == [NOT_INSTALLED]


@pytest.mark.parametrize(
    ("ours", "keeps_to_the_line", "is_first"), [(23.9, True, True), (24.1, False, True)]
)
def test_room_to_open_may_take_a_twentieth_and_3_ms_above_the_round_trip(
    ours: float, keeps_to_the_line: bool, is_first: bool
) -> None:
    result = predial.combine([(Step({"rounds": 1}, 0.02), FOUND | {OURS: [ours]})])
    assert [target.holds for target in result.targets] == [keeps_to_the_line, is_first]


def test_a_drop_that_nobody_came_back_from_misses_its_bar() -> None:
    found: dict[str, list[recovery.Gaps]] = {name: [[0.001], [0.001]] for name in recovery.PUMPS}
    found[recovery.WEBSOCKET] = [[None], [0.001]]
    result = recovery.combine([(Step({"rounds": 1}, recovery.LINE, tls=True), found)])
    assert [target.holds for target in result.targets] == [True, True, False]


def test_without_a_line_no_planned_end_is_measured_and_none_misses_its_bar() -> None:
    result = endings.combine([(Step({"rounds": 1, "holes": 1}, recovery.LINE, tls=True), None)])
    assert {target.holds for target in result.targets} == {None}
    assert "not measured" in as_text(result)


def test_results_survive_their_json() -> None:
    curves = Curves("x", "y", {"one": ([1, 2], [0.5, 0.25])}, "x")
    result = Result(
        "name",
        "title",
        "note",
        [Column("ms", 1)],
        {"a": [1.5], "b": [None], "c": ["-"]},
        [Target("at most 1", 1.5, 1.0)],
        curves,
    )
    done = Run("2026-01-01", quick=False, machine={"cores": "2"}, results=[result])
    again = from_json(done.to_json())
    assert again.to_json() == done.to_json()
    assert as_figures(again) == as_figures(done)
    assert [target.claim for target in again.missed] == ["at most 1"]


def test_the_documentation_shows_the_committed_results() -> None:
    page = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    committed = from_json((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    shown = page[page.index(BEGIN) : page.index(END) + len(END)]
    assert shown == as_figures(committed)
    assert all(f"--only {result.name}`" in shown for result in committed.results)
    drawn = pictures(committed.results)
    assert len(drawn) == 2
    for name, text in drawn.items():
        assert (ROOT / "docs" / "assets" / name).read_text(encoding="utf-8") == text


def test_the_picture_tells_round_trips_as_they_were_measured() -> None:
    result = Result(
        "predial",
        "title",
        "note",
        [Column("ms at 80 ms", 1)],
        {OURS: [83.0], "aiohttp": [245.0], "TCP connect": [81.0]},
    )
    assert "83 ms, 1 round trip<" in draw(result, COLOURS["light"])
    assert "245 ms, 3 round trips<" in draw(result, COLOURS["dark"])
    result.rows["aiohttp"] = [None]
    with pytest.raises(ValueError, match="not measured"):
        draw(result, COLOURS["light"])


def test_figures_are_put_between_their_marks_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "figures.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    done = Run("2026-01-01", quick=False, machine={"cores": "2"})
    put_into(page, done)
    assert page.read_text(encoding="utf-8") == f"before\n{as_figures(done)}\nafter\n"


DIAL = """
import socket, sys, time
started = time.monotonic()
socket.create_connection((sys.argv[1], 8000), 5).close()
print(time.monotonic() - started)
"""
LISTEN = """
import socket, sys
with socket.create_server((sys.argv[1], 8000)) as server:
    print("ready", flush=True)
    server.accept()
"""


@pytest.mark.skipif(missing() is not None, reason=f"a long line needs {missing()}")
def test_a_line_takes_a_round_trip_for_a_connect_and_leaves_no_namespace() -> None:
    before = namespaces()
    with open_line(0.04) as line:
        listen = [*line.far, sys.executable, "-c", LISTEN, line.far_address]
        with subprocess.Popen(listen, stdout=subprocess.PIPE, text=True) as far:
            assert far.stdout is not None
            assert far.stdout.readline() == "ready\n"
            dial = [*line.near, sys.executable, "-c", DIAL, line.far_address]
            near = subprocess.run(dial, capture_output=True, text=True, check=True)
        assert namespaces() > before
    assert float(near.stdout) >= 0.04
    assert namespaces() == before


def namespaces() -> set[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return {line.split()[0] for line in listed.stdout.splitlines() if line.startswith("bench-")}
