"""Runs targets for a while, by atheris or else Hypothesis: ``python -m tests.fuzz.run [NAME…] --seconds 30``.

Each target runs in a process of its own, with bounds on memory and on the time of one input. What atheris
finds worth keeping stays in build/fuzz, and is where the next run begins.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOUND = ROOT / "build" / "fuzz"
#: Memory limit of one process. The libraries that targets load take some 150 MB of it.
RSS_LIMIT_MB = 1024
INPUT_TIMEOUT_S = 5


def main() -> int:
    """Run the targets that the command line names; return 1 if one of them has a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="targets; all without")
    parser.add_argument("--seconds", type=float, default=30.0, help="time for each target (30)")
    parser.add_argument("--share", metavar="N/OF", help="every OF-th target from the N-th on, as 0/3")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        return _run_alone(arguments.names[0], arguments.seconds)
    # Import the targets here and not above, because atheris must see the imports of a process that fuzzes.
    from tests.fuzz.targets import ALL  # noqa: PLC0415 - see above

    unknown = set(arguments.names) - ALL.keys()
    if unknown:
        parser.error(f"unknown target {sorted(unknown)[0]}; known are {', '.join(ALL)}")
    number, _, of = (arguments.share or "0/1").partition("/")
    names = list(arguments.names or ALL)[int(number) :: int(of)]
    failed = [name for name in names if not _run(name, arguments.seconds)]
    sys.stderr.write(f"faults in: {', '.join(failed)}\n" if failed else "no fault found\n")
    return 1 if failed else 0


def _run(name: str, seconds: float) -> bool:
    sys.stderr.write(f"-- {name}\n")
    command = [sys.executable, "-m", "tests.fuzz.run", name, "--alone", "--seconds", str(seconds)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def _run_alone(name: str, seconds: float) -> int:
    if importlib.util.find_spec("atheris") is None:
        return _run_with_hypothesis(name, seconds)
    import atheris  # noqa: PLC0415 - not on every platform

    with atheris.instrument_imports(include=["inference", "streamer"]):
        from tests.fuzz.targets import ALL  # noqa: PLC0415 - instrumented as it is loaded
    target = ALL[name]
    corpus = FOUND / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.corpus()):
        (corpus / f"seed-{number}").write_bytes(data)
    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            f"-max_total_time={int(seconds)}",
            f"-max_len={target.most_bytes}",
            f"-rss_limit_mb={RSS_LIMIT_MB}",
            f"-timeout={INPUT_TIMEOUT_S}",
            f"-artifact_prefix={FOUND}/{name}-",
            "-print_final_stats=1",
            "-verbosity=0",
        ],
        target.try_input,
    )
    atheris.Fuzz()  # ends the process
    return 0


def _run_with_hypothesis(name: str, seconds: float) -> int:
    from hypothesis import HealthCheck, given, settings  # noqa: PLC0415 - the other way is atheris

    from tests.fuzz.mutate import mutated  # noqa: PLC0415 - as above
    from tests.fuzz.targets import ALL  # noqa: PLC0415 - as above

    target = ALL[name]
    end = time.monotonic() + seconds

    @settings(max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(mutated(target.corpus(), target.most_bytes))
    def run(data: bytes) -> None:
        if time.monotonic() < end:
            target.try_input(data)

    while time.monotonic() < end:
        run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
