from __future__ import annotations

from typing import Any

import pytest
from duplex import GatewayError
from pooled_tts import SENTENCES, speak

from agent_conn import ConnectionLost
from agent_conn.gateway import CloseWith, Gateway


async def test_ten_sentences_are_spoken_over_one_dial(
    gateway: Gateway, loop_reports: list[dict[str, Any]]
) -> None:
    pcm, did = await speak(gateway.base_url, SENTENCES)
    assert len(SENTENCES) == 10
    assert gateway.accepted == 1
    assert (did.acquired, did.dialed) == (10, 1)
    assert len(pcm) == pytest.approx(2 * 24_000 * 0.06 * sum(map(len, SENTENCES)), rel=0.01)


async def test_a_connection_that_ends_amid_a_sentence_is_told_of(gateway: Gateway) -> None:
    gateway.inject(CloseWith(1011, after_messages=2))
    with pytest.raises(ConnectionLost, match="1011"):
        await speak(gateway.base_url, SENTENCES)


async def test_a_close_in_order_amid_a_sentence_is_told_of(gateway: Gateway) -> None:
    gateway.inject(CloseWith(1000, after_messages=2))
    with pytest.raises(GatewayError, match="before all was spoken"):
        await speak(gateway.base_url, SENTENCES)
