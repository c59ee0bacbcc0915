"""Recognition by pocketsphinx in processes of its own, which are kept for the next session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agent_conn.gateway.speech.engine import SpeechFailed, SpeechUnavailable, Transcript, Word
from agent_conn.gateway.speech.resample import Resampler
from agent_conn.gateway.speech.sphinx_worker import HEADER, LENGTH, SAMPLE_RATE
from agent_conn.gateway.speech.threads import EngineThreads

WORKER = Path(__file__).with_name("sphinx_worker.py")
EXIT_SECONDS = 1.0


class SphinxProcess:
    """One recogniser process. Its calls block, and are made from one thread at a time."""

    def __init__(self) -> None:
        # The child must find pocketsphinx where this process found it.
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter and our own script
            [sys.executable, "-P", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": paths},
        )
        self._lock = threading.Lock()
        self._ended = False

    def call(self, operation: bytes, payload: bytes = b"") -> list[dict[str, Any]]:
        """Send one request and wait for its answer.

        Raises:
            SpeechFailed: the process died or was killed.
        """
        with self._lock:
            try:
                return self._exchange(operation, payload)
            except (OSError, ValueError) as failure:
                raise SpeechFailed("the recogniser's process ended unexpectedly") from failure

    def kill(self) -> None:
        """End the process at once, whatever it is doing, and reap it. Idempotent."""
        self._process.kill()
        # A call under way has the pipes; it ends now that the process has.
        with self._lock:
            if not self._ended:
                self._ended = True
                self._process.communicate(timeout=EXIT_SECONDS)

    def _exchange(self, operation: bytes, payload: bytes) -> list[dict[str, Any]]:
        requests, answers = self._process.stdin, self._process.stdout
        if self._ended or requests is None or answers is None:
            raise BrokenPipeError
        requests.write(HEADER.pack(operation, len(payload)) + payload)
        requests.flush()
        header = answers.read(LENGTH.size)
        if len(header) < LENGTH.size:
            raise BrokenPipeError
        results: list[dict[str, Any]] = json.loads(answers.read(LENGTH.unpack(header)[0]))
        return results


class SphinxPool:
    """Recogniser processes: at most `size` idle ones are kept, since one takes 0.5 s to start."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._idle: list[SphinxProcess] = []
        self._all: set[SphinxProcess] = set()
        self._lock = threading.Lock()
        self._closed = False

    def take(self) -> SphinxProcess:
        """Return an idle process or a new one.

        Raises:
            SpeechUnavailable: pocketsphinx is not installed.
            SpeechFailed: the pool is closed.
        """
        if find_spec("pocketsphinx") is None:
            raise SpeechUnavailable(
                "recognition needs pocketsphinx, which has no wheel for Python 3.14 yet: "
                "pip install 'agent-conn[speech]' on an older one",
                name="pocketsphinx",
            )
        with self._lock:
            if self._closed:
                raise SpeechFailed("the speech engine is closed; make a new one")
            if self._idle:
                return self._idle.pop()
            process = SphinxProcess()
            self._all.add(process)
            return process

    def warm_up(self) -> None:
        """Start a process and keep it idle. Blocks.

        Raises:
            SpeechUnavailable: pocketsphinx is not installed.
            SpeechFailed: the process ends at once, or the pool is closed.
        """
        process = self.take()
        try:
            process.call(b"R")
        except SpeechFailed:
            self._discard(process)
            raise
        self.give_back(process)

    def give_back(self, process: SphinxProcess) -> None:
        """Make a process idle again, or end it if it is broken or one too many. Blocks."""
        try:
            process.call(b"R")
        except SpeechFailed:
            self._discard(process)
            return
        with self._lock:
            if not self._closed and len(self._idle) < self._size:
                self._idle.append(process)
                return
        self._discard(process)

    def close(self) -> None:
        """Kill every process, those in use included. Idempotent."""
        with self._lock:
            self._closed = True
            self._idle.clear()
            processes = tuple(self._all)
        for process in processes:
            self._discard(process)

    def _discard(self, process: SphinxProcess) -> None:
        process.kill()
        with self._lock:
            self._all.discard(process)


class SphinxRecognizer:
    """One session's recogniser; it takes a process at the first audio."""

    def __init__(
        self, pool: SphinxPool, threads: EngineThreads, sample_rate: int, language: str
    ) -> None:
        self._pool = pool
        self._threads = threads
        self._sample_rate = sample_rate
        self._language = language
        self._resampler = Resampler(sample_rate, SAMPLE_RATE)
        self._process: SphinxProcess | None = None
        self._lock = threading.Lock()
        self._closed = False

    async def feed(self, pcm: bytes) -> list[Transcript]:
        """Take audio; give an interim if it changed, a final after a pause of 0.7 s."""
        return await self._call(b"A", pcm)

    async def finalize(self) -> list[Transcript]:
        """Give the final of the utterance under way, if there is one."""
        return await self._call(b"F", b"")

    async def aclose(self) -> None:
        """Give the process back. Idempotent."""
        # A closed engine has ended its processes already.
        if not self._closed and not self._threads.closed:
            await self._threads.run(self._finish)
        self._closed = True

    async def _call(self, operation: bytes, pcm: bytes) -> list[Transcript]:
        results = await self._threads.run(self._work, operation, pcm)
        return [self._transcript(result) for result in results]

    def _work(self, operation: bytes, pcm: bytes) -> list[dict[str, Any]]:
        # A cancelled call goes on in its thread, and the next must wait for it.
        with self._lock:
            if self._closed:
                raise SpeechFailed("the recogniser is closed")
            if operation == b"A":
                process = self._process = self._process or self._pool.take()
                return process.call(b"A", self._resampler.feed(pcm))
            if self._process is None:
                return []
            rest = self._resampler.flush()
            self._resampler = Resampler(self._sample_rate, SAMPLE_RATE)
            return self._process.call(b"A", rest) + self._process.call(b"F")

    def _finish(self) -> None:
        with self._lock:
            self._closed = True
            process, self._process = self._process, None
        if process is not None:
            self._pool.give_back(process)

    def _transcript(self, result: dict[str, Any]) -> Transcript:
        words = tuple(Word(*word) for word in result["words"])
        start = words[0].start if words else 0.0
        return Transcript(
            text=result["text"],
            final=result["final"],
            start=start,
            duration=words[-1].end - start if words else 0.0,
            confidence=sum(word.confidence for word in words) / len(words) if words else 0.0,
            words=words,
            language=self._language,
        )
