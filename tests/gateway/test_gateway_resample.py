from __future__ import annotations

from math import pi, sin

import pytest

from agent_conn.gateway.speech.resample import Resampler, decode_samples, encode_samples, resample


def tone(hertz: float, rate: int, seconds: float = 0.25) -> bytes:
    step = 2 * pi * hertz / rate
    return encode_samples([round(10_000 * sin(step * i)) for i in range(round(rate * seconds))])


def loudness(pcm: bytes) -> float:
    samples = decode_samples(pcm)[200:-200]
    return max(map(abs, samples), default=0)


@pytest.mark.parametrize("source", [8_000, 22_050, 24_000, 48_000])
@pytest.mark.parametrize("target", [8_000, 16_000, 24_000])
def test_a_tone_stays_that_tone(source: int, target: int) -> None:
    converted = decode_samples(resample(tone(440, source), source, target))
    expected = decode_samples(tone(440, target))
    assert abs(len(converted) - len(expected)) <= 1
    worst = max(abs(a - b) for a, b in list(zip(converted, expected, strict=False))[200:-200])
    assert worst < 60


def test_what_the_target_rate_cannot_carry_is_taken_out() -> None:
    assert loudness(resample(tone(10_000, 24_000), 24_000, 16_000)) < 200


def test_pieces_of_any_size_give_what_the_whole_gives() -> None:
    pcm = tone(300, 24_000)
    resampler = Resampler(24_000, 16_000)
    pieces = [resampler.feed(pcm[start : start + 777]) for start in range(0, len(pcm), 777)]
    assert b"".join(pieces) + resampler.flush() == resample(pcm, 24_000, 16_000)


def test_equal_rates_change_nothing() -> None:
    pcm = tone(300, 16_000)
    assert resample(pcm, 16_000, 16_000) == pcm


def test_loud_samples_are_clipped_and_not_wrapped() -> None:
    assert list(decode_samples(encode_samples([40_000, -40_000]))) == [32_767, -32_768]
