"""How far repeats of one A/B comparison lie apart while another process loads a core.

    python benchmarks/busy.py [--repeats 5] [--rounds 12] [--seconds 0.25] [--models FOLDER] [--json]

A is a stack of convolutions and B the same a third narrower, in both runtimes: small (about 0.4 ms), about as
long as a scheduler's slice (3 ms) and large (20 ms). "beside": the load runs on one core and the bench
wherever the system puts it. "shared": bench and load are bound to the same core, the worst that can happen.
The spread is (largest − smallest) / median of the repeats' ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import Figure, finish
from graded_models import Grade, make

from device_bench.local import compare
from device_bench.protocol import BenchRequest, Failure, Rounds, TimingPolicy
from device_bench.runtimes import SUFFIXES

LIMIT = 0.05
PAIRS = (
    (Grade(side=48, width=48, layers=5), Grade(side=48, width=32, layers=5)),
    (Grade(side=80, width=80, layers=5), Grade(side=80, width=56, layers=5)),
    (Grade(side=128, width=96, layers=7), Grade(side=128, width=64, layers=7)),
)


@contextmanager
def load_on(core: int) -> Iterator[None]:
    """A process that keeps one core busy with arithmetic over more memory than its caches hold."""
    # It ends with this process, however that ends.
    code = (
        "import numpy, os\nparent, a = os.getppid(), numpy.ones(1 << 20)\n"
        "while os.getppid() == parent: a = a * 0.5 + 0.5"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        try:
            os.sched_setaffinity(process.pid, {core})
            time.sleep(0.5)
            yield
        finally:
            process.kill()


def one_ratio(first: Path, second: Path, rounds: Rounds) -> tuple[float, float, float, float]:
    """The speed-up, its interval, and the seconds that the comparison took."""
    timing = TimingPolicy(warmup_seconds=0.3)
    runtime = SUFFIXES[first.suffix]
    one = BenchRequest(path=str(first), runtime=runtime, timing=timing)
    other = BenchRequest(path=str(second), runtime=runtime, timing=timing)
    started = time.monotonic()
    outcome = compare(one, other, rounds)
    if isinstance(outcome, Failure):
        raise SystemExit(f"{outcome.kind.value}: {outcome.message}")
    return outcome.speedup, outcome.low, outcome.high, time.monotonic() - started


def repeated(where: str, first: Path, second: Path, repeats: int, rounds: Rounds) -> Figure:
    """One row."""
    taken = [one_ratio(first, second, rounds) for _ in range(repeats)]
    ratios = [speedup for speedup, _, _, _ in taken]
    spread = (max(ratios) - min(ratios)) / statistics.median(ratios)
    listed = " ".join(f"{value:.3f}" for value in ratios)
    seconds = statistics.median(took for _, _, _, took in taken)
    return Figure(
        what=f"{repeats} repeats, load {where}, {first.name}",
        asked=f"spread < {LIMIT:.0%}",
        measured=f"{spread:.1%} ({listed}; {seconds:.0f} s each)",
        reached=spread < LIMIT,
        details={
            "load": where,
            "first": first.name,
            "second": second.name,
            "ratios": ratios,
            "intervals": [(low, high) for _, low, high, _ in taken],
            "seconds": seconds,
            "spread": spread,
        },
    )


def main() -> int:
    """Measure and print; exit code 1 if a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=Rounds().count)
    parser.add_argument("--seconds", type=float, default=Rounds().seconds)
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "edgeloop-benchmarks")
    parser.add_argument(
        "--only", default="", help="part of the words '<where> <file>' of the rows to measure"
    )
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rounds = Rounds(count=given.rounds, seconds=given.seconds)
    made = [(make(a, given.models), make(b, given.models)) for a, b in PAIRS]
    cores = sorted(os.sched_getaffinity(0))
    figures = []
    for where in ("beside", "shared"):
        if where == "beside" and len(cores) == 1:
            continue
        with load_on(cores[-1]):
            if where == "shared":
                os.sched_setaffinity(0, {cores[-1]})
            for first, second in made:
                for form in first:
                    if given.only in f"{where} {first[form].name}":
                        figures.append(repeated(where, first[form], second[form], given.repeats, rounds))
    return finish(figures, "Repeats on a busy machine", given.json)


if __name__ == "__main__":
    sys.exit(main())
