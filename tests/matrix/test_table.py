"""The matrix as a whole: big enough, and no combination is missing without a reason."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import pytest
from matrix.__main__ import main
from matrix.cells import Cell, every, full
from matrix.fates import FATES
from matrix.vocabulary import Consumer, Empty, Expected, Fault, Place, Way

pytestmark = pytest.mark.quick

SIDES: dict[str, Iterable[StrEnum]] = {
    "consumer": Consumer,
    "place": Place,
    "fault": Fault,
    "way": Way,
}


def test_every_combination_is_a_run_or_has_its_reason() -> None:
    cells = list(every())
    assert len(cells) == len(Consumer) * len(Place) * len(Fault) * len(Way) == len(set(cells))
    for cell in cells:
        assert isinstance(cell.held, Expected | Empty), cell


def test_at_least_200_cells_are_run() -> None:
    assert len({str(cell) for cell in full()}) == len(full()) >= 200


@pytest.mark.parametrize("side", SIDES)
def test_every_value_of_a_side_has_cells_that_are_run(side: str) -> None:
    assert {getattr(cell, side) for cell in full()} == set(SIDES[side])


def test_every_reason_is_some_cells() -> None:
    assert {cell.held for cell in every() if isinstance(cell.held, Empty)} == set(Empty)


def test_no_fate_is_of_a_place_where_it_cannot_be_met() -> None:
    run = {(cell.place, cell.fault) for cell in full()}
    assert run == {(place, fault) for place in FATES for fault in FATES[place]}


def test_the_table_shows_every_cell_and_counts_them(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    shown = capsys.readouterr().out
    for cell in (full()[0], Cell(Consumer.CORE, Place.IDLE, Fault.LOSE, Way.CANCEL)):
        (line,) = (line for line in shown.splitlines() if line.startswith(f"{cell} "))
        assert isinstance(cell.held, Expected) or line.endswith(f"- {cell.held}")
    assert f"{len(full())} cells are run" in shown
