"""Odd input of every kind: a typed error or accepted, nothing else."""

from __future__ import annotations

from typing import Any

import pure_properties as pure
import pytest
import wire_properties as wire
from hypothesis import HealthCheck, given, settings

quick = settings(
    max_examples=100,
    deadline=None,  # a socket's time is the machine's
    database=None,
    # Strategies that lean to the odd filter much; each property runs in one call of its test.
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("name", pure.PROPERTIES)
def test_odd_input_is_accepted_or_refused_in_our_own_words(name: str) -> None:
    holds, inputs = pure.PROPERTIES[name]
    quick(given(inputs)(holds))()


@pytest.mark.parametrize("name", wire.PROPERTIES)
def test_odd_bytes_on_a_socket_end_in_a_typed_error_or_a_close(name: str) -> None:
    play, inputs = wire.PROPERTIES[name]
    with wire.Stage() as stage:

        def holds(given_input: Any) -> None:
            stage.run(play, given_input)

        quick(given(inputs)(holds))()
