"""Sample-rate conversion of 16-bit mono PCM, in a stream and without dependencies."""

from __future__ import annotations

import sys
from array import array
from math import ceil, cos, gcd, pi, sin
from operator import mul

ZERO_CROSSINGS = 8
"""Lobes of the sinc kernel on each side; 8 keeps aliases 50 dB down for speech."""


class Resampler:
    """Converts little-endian pcm_s16le mono from one sample rate to another, in a stream.

    A windowed-sinc polyphase filter: feed pieces of any size, then `flush()` once. Not safe
    for use from two threads at once. Rates are in hertz.
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        if source_rate <= 0 or target_rate <= 0:
            raise ValueError(
                f"source_rate and target_rate must be positive, got {source_rate} and {target_rate}"
            )
        divisor = gcd(source_rate, target_rate)
        self._up = target_rate // divisor
        self._down = source_rate // divisor
        self._cutoff = min(1.0, target_rate / source_rate)
        self._half = ceil(ZERO_CROSSINGS / self._cutoff)
        self._kernels: dict[int, list[float]] = {}
        # Starting with half a kernel of silence puts the first output on the first input.
        self._samples: list[int] = [0] * (self._half - 1)
        self._position = 0
        self._odd_byte = b""

    def feed(self, pcm: bytes) -> bytes:
        """Return the converted audio that `pcm` completes; an odd last byte is kept back."""
        pcm = self._odd_byte + pcm
        usable = len(pcm) & ~1
        self._odd_byte = pcm[usable:]
        if self._up == self._down:
            return pcm[:usable]
        self._samples.extend(decode_samples(pcm[:usable]))
        return self._drain()

    def flush(self) -> bytes:
        """Return what is still held, as if silence followed."""
        if self._up == self._down:
            return b""
        self._samples.extend([0] * self._half)
        return self._drain()

    def _drain(self) -> bytes:
        samples, up, down, taps = self._samples, self._up, self._down, 2 * self._half
        position = self._position
        out: list[int] = []
        while True:
            first, phase = divmod(position, up)
            window = samples[first : first + taps]
            if len(window) < taps:
                break
            kernel = self._kernels.get(phase) or self._kernel(phase)
            out.append(round(sum(map(mul, window, kernel))))
            position += down
        consumed = min(position // up, len(samples))
        del samples[:consumed]
        self._position = position - consumed * up
        return encode_samples(out)

    def _kernel(self, phase: int) -> list[float]:
        offset = phase / self._up
        weights = [self._weight(tap - offset) for tap in range(1 - self._half, self._half + 1)]
        total = sum(weights)
        kernel = [weight / total for weight in weights]
        self._kernels[phase] = kernel
        return kernel

    def _weight(self, distance: float) -> float:
        if abs(distance) >= self._half:
            return 0.0
        window = 0.5 + 0.5 * cos(pi * distance / self._half)
        angle = pi * distance * self._cutoff
        return window * (sin(angle) / angle if angle else 1.0)


def resample(pcm: bytes, source_rate: int, target_rate: int) -> bytes:
    """Convert one whole piece of pcm_s16le mono from `source_rate` to `target_rate` hertz."""
    resampler = Resampler(source_rate, target_rate)
    return resampler.feed(pcm) + resampler.flush()


def decode_samples(pcm: bytes) -> array[int]:
    """Return the samples of little-endian 16-bit PCM; its length must be even."""
    samples = array("h")
    samples.frombytes(pcm)
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def encode_samples(samples: list[int]) -> bytes:
    """Return samples as little-endian 16-bit PCM, clipped to its range."""
    clipped = array("h", [max(-32768, min(32767, sample)) for sample in samples])
    if sys.byteorder == "big":
        clipped.byteswap()
    return clipped.tobytes()
