"""Fuzz for as long as asked: every property gets an equal share of the time, in turn.

    python tests/fuzz/run.py --minutes 10
    python tests/fuzz/run.py --minutes 10 --engine atheris

hypothesis makes inputs at random; atheris (pip install atheris) is led by the coverage of this
package. An input that fails is printed, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

EXAMPLES_PER_ROUND = 500


@contextmanager
def property_test(name: str, examples: int = EXAMPLES_PER_ROUND) -> Iterator[Callable[[], None]]:
    # Imported here, for atheris to instrument them first.
    import pure_properties as pure
    import wire_properties as wire
    from hypothesis import HealthCheck, given, settings

    config = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    if name in pure.PROPERTIES:
        holds, inputs = pure.PROPERTIES[name]
        yield config(given(inputs)(holds))
        return
    play, inputs = wire.PROPERTIES[name]
    with wire.Stage() as stage:
        yield config(given(inputs)(lambda given_input: stage.run(play, given_input)))


def with_hypothesis(name: str, seconds: float) -> bool:
    """Whether the property held for ``seconds``."""
    until = time.monotonic() + seconds
    inputs = 0
    with property_test(name) as test:
        while time.monotonic() < until:
            try:
                test()
            except Exception:
                traceback.print_exc()
                return False
            inputs += EXAMPLES_PER_ROUND
    print(f"  held for {inputs} inputs", flush=True)
    return True


def with_atheris(name: str, seconds: float) -> bool:
    """The same, in a process of its own, which libFuzzer ends."""
    script = f"import run; run.be_led_by_coverage({name!r}, {round(seconds)})"
    command = [sys.executable, "-c", script]
    return not subprocess.run(command, check=False, cwd=Path(__file__).parent).returncode


def be_led_by_coverage(name: str, seconds: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["agent_conn"]), property_test(name) as test:
        flags = [f"-max_total_time={seconds}", "-max_len=2048", "-len_control=0", "-verbosity=0"]
        flags += ["-print_final_stats=1", f"-artifact_prefix={tempfile.gettempdir()}/{name}-"]
        atheris.Setup([name, *flags], test.hypothesis.fuzz_one_input)  # type: ignore[attr-defined]
        atheris.Fuzz()


def main() -> None:
    import pure_properties as pure
    import wire_properties as wire

    names = [*pure.PROPERTIES, *wire.PROPERTIES]
    engines = {"hypothesis": with_hypothesis, "atheris": with_atheris}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--engine", choices=engines, default="hypothesis")
    parser.add_argument("--only", action="append", choices=names, metavar="PROPERTY")
    options = parser.parse_args()
    if options.engine == "atheris" and find_spec("atheris") is None:
        parser.error("--engine atheris needs it installed: pip install atheris")
    chosen = options.only or names
    share = options.minutes * 60 / len(chosen)
    failed = []
    for name in chosen:
        print(f"{name}: {share:.0f} s", flush=True)
        if not engines[options.engine](name, share):
            failed.append(name)
    print(f"{len(chosen) - len(failed)} of {len(chosen)} properties held", *failed)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
