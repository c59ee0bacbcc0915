"""The pytest plugin of agent_conn: fixtures, whose parts are in `agent_conn.testing`.

pytest loads it in every run, so it stands outside of the package: importing that would import
aiohttp too, which takes as long as pytest itself (``python benchmarks/plugin.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import asyncio

    from agent_conn.testing import InferenceGateway, RoomIdentity


@pytest.fixture
def inference_gateway() -> Iterator[InferenceGateway]:
    """A running local inference gateway, which records who calls and fails on demand."""
    from agent_conn.testing import InferenceGateway

    with InferenceGateway() as gateway:
        yield gateway


@pytest.fixture
def room_connected() -> asyncio.Event:
    """The room's event: `room_connected.set()` connects the room now."""
    import asyncio

    return asyncio.Event()


@pytest.fixture
def identity(room_connected: asyncio.Event) -> RoomIdentity:
    """An identity source whose agent id raises until the room is connected."""
    from agent_conn.testing import RoomIdentity

    return RoomIdentity(room_connected)


@pytest.fixture
def livekit_environment(
    inference_gateway: InferenceGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Has LiveKit Agents' inference clients dial `inference_gateway`, by environment variables."""
    monkeypatch.setenv("LIVEKIT_INFERENCE_URL", inference_gateway.base_url)
    monkeypatch.setenv("LIVEKIT_INFERENCE_API_KEY", "key-of-the-test")
    monkeypatch.setenv("LIVEKIT_INFERENCE_API_SECRET", "secret-of-the-test-0123456789abcdef")
