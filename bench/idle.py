"""Measures what a service without clients costs: memory of each process, and processor time.

It starts a service with one worker and prints the time until it is ready, the proportional set size (PSS) of
each process, in which shared pages are divided among their users, and the share of one core that all
processes together use while nothing is sent. Compare the figures with those of an earlier version on the same
machine and model.

Run it with ``make bench BENCH=idle``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.helpers.media import model
from tests.helpers.service import Service


def cpu_s(service: Service) -> float:
    """Return the processor seconds that all processes of the service have used."""
    return sum(sum(process.cpu_times()[:2]) for process in family(service).values())


def family(service: Service) -> dict[str, psutil.Process]:
    """Return the processes, by role, of a service with one worker."""
    (worker,) = service.workers
    return {
        "supervisor": service.supervisor,
        "worker": worker,
        "inference": service.inference,
        "fork server": service.inference_server,
        "sampling process": service.sampling_process,
    }


def main() -> None:
    """Print the memory of each process and the share of a core that all of them use."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="yolox_nano", help="null, yolox_nano (if shared) or a path")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the measurement")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = model(arguments.model, Path(folder))
        begun = time.monotonic()
        with Service({"MODEL_V1_PATH": str(path)}) as service:
            started_s = time.monotonic() - begun
            sizes = {role: process.memory_full_info().pss / 1e6 for role, process in family(service).items()}
            time.sleep(2)
            before, begun = cpu_s(service), time.monotonic()
            time.sleep(arguments.seconds)
            share = (cpu_s(service) - before) / (time.monotonic() - begun)
    parts = ", ".join(f"{role} {size:.0f}" for role, size in sizes.items())
    sys.stdout.write(
        f"{path.name}: ready after {started_s:.1f} s; PSS {sum(sizes.values()):.0f} MB ({parts});"
        f" {share:.2%} of a core while idle\n"
    )


if __name__ == "__main__":
    main()
