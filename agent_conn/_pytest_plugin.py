"""The pytest plugin of agent_conn: a gateway and a room for tests of voice agents.

pytest finds it by itself. Nothing but pytest is imported before a test asks for a fixture, so that
a run which uses none pays for none. For a gateway of another kind, or one for many tests, make a
fixture of your own::

    @pytest.fixture(scope="session")
    def inference_gateway():
        with InferenceGateway(Gateway(token="…")) as gateway:
            yield gateway
"""

# ruff: noqa: PLC0415

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
def agent_room_connected() -> asyncio.Event:
    """The room's event: `agent_room_connected.set()` connects the room now."""
    import asyncio

    return asyncio.Event()


@pytest.fixture
def agent_identity(agent_room_connected: asyncio.Event) -> RoomIdentity:
    """An identity source whose agent id raises until the room is connected."""
    from agent_conn.testing import RoomIdentity

    return RoomIdentity(agent_room_connected)


@pytest.fixture
def inference_environment(
    inference_gateway: InferenceGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Has LiveKit Agents' inference clients dial `inference_gateway`, by environment variables."""
    monkeypatch.setenv("LIVEKIT_INFERENCE_URL", inference_gateway.base_url)
    monkeypatch.setenv("LIVEKIT_INFERENCE_API_KEY", "key-of-the-test")
    monkeypatch.setenv("LIVEKIT_INFERENCE_API_SECRET", "secret-of-the-test-0123456789abcdef")
