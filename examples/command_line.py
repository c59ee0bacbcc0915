"""What the examples' command lines have in common: the gateway's options, and errors."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
import wave
from array import array
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NoReturn

from duplex import GatewayError

from agent_conn import AgentConnError, TokenSource
from agent_conn.gateway import SpeechFailed, mint_token

TOKEN_VARIABLE = "LIVEKIT_INFERENCE_TOKEN"  # noqa: S105  (a name, no secret)


def gateway_parser(description: str, *, url_required: bool = True) -> argparse.ArgumentParser:
    """Return a parser with `--url`, `--api-key` and `--api-secret`."""
    parser = argparse.ArgumentParser(description=description)
    url_help = "base URL of a gateway, such as https://host/v1"
    parser.add_argument("--url", required=url_required, help=url_help)
    parser.add_argument("--api-key", help="to mint inference tokens with")
    parser.add_argument("--api-secret", help=f"of that key; without them ${TOKEN_VARIABLE} is sent")
    return parser


def token_source(options: argparse.Namespace) -> TokenSource | None:
    """Return what `--api-key` and `--api-secret` mint, else the environment's token."""
    if not options.api_key:
        return os.environ.get(TOKEN_VARIABLE) or None
    mint = partial(mint_token, options.api_key, options.api_secret)
    mint()  # So that a missing package is reported here, and not as the failure of a dial.
    return mint


def service_url(base_url: str, service: str) -> str:
    """Return the URL of a gateway's `stt` or `tts`."""
    return f"{base_url.rstrip('/')}/{service}?model=auto"


def seconds(text: str) -> float:
    """Read an option that is a finite number of 0 or more."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of 0 or more, got {text}")
    return value


def words(text: str) -> str:
    """Read an option that is something to say."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must be words to say, got none")
    return text


def wav_file(name: str) -> tuple[bytes, int]:
    """Read an option that names a WAV file: its speech as mono, its sample rate in hertz."""
    try:
        with wave.open(name, "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            pcm = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        reason = str(error) or "it is cut off"
        raise argparse.ArgumentTypeError(f"cannot read {name}: {reason}") from None
    pcm = pcm[: len(pcm) - len(pcm) % (width * channels)]
    if width != 2 or channels not in (1, 2) or not pcm:
        raise argparse.ArgumentTypeError(
            f"{name} must hold 16-bit PCM, mono or stereo, with at least one sample"
        )
    if channels == 2:
        samples = array("h", pcm)
        pairs = zip(samples[::2], samples[1::2], strict=True)
        pcm = array("h", [(left + right) // 2 for left, right in pairs]).tobytes()
    return pcm, rate


def run(
    work: Callable[[argparse.Namespace], Coroutine[Any, Any, None]], parser: argparse.ArgumentParser
) -> NoReturn:
    """Run an example and exit; an error is printed in one line."""
    options = parser.parse_args()
    if bool(options.api_key) is not bool(options.api_secret):
        parser.error("--api-key and --api-secret go together")
    try:
        asyncio.run(work(options))
    except KeyboardInterrupt:
        sys.exit(130)
    except (AgentConnError, GatewayError, ImportError, OSError, SpeechFailed) as error:
        sys.exit(f"{parser.prog}: {error}")
    sys.exit(0)
