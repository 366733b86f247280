"""What our measuring adds to a run: against a bare loop over the same runtime, and against litert-benchmark.

    python benchmarks/overhead.py [--rounds 7] [--seconds 0.5] [--models FOLDER] [--only SUBSTRING] [--json]

Every p50 comes from a fresh process: ours from `device_bench.local.measure`, the others' from bare_loop.py.
They take turns (A B B A …) on the same file with one thread, so a drift of the machine cancels; the ratio is
the median over rounds of ours/theirs with its 95 % bootstrap interval. Bind it to one quiet core:
`taskset -c 1 python …`.

litert-benchmark calls `CompiledModel.run_by_name`, which wraps every tensor in Python at each call; we call
`Interpreter.invoke`. What that costs is measured on a model of four operators on one number. The raw ratio is
shown, and beside it the ratio with that cost added to ours: the second one is judged.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import Figure, finish
from graded_models import EMPTY, GRADES, Grade, make

from device_bench.local import measure
from device_bench.protocol import BenchRequest, Failure, RuntimeName, TimingPolicy
from device_bench.runtimes import SUFFIXES
from device_bench.statistics import Ratio, ratio_of_rounds

LIMIT = 0.03
_WARMUP_SECONDS = 0.2
_FEWEST = 16
_BARE_LOOP = Path(__file__).with_name("bare_loop.py")


def our_p50(path: Path, seconds: float) -> float:
    """Milliseconds, from one measurement of ours."""
    timing = TimingPolicy(
        warmup_seconds=_WARMUP_SECONDS, min_samples=_FEWEST, min_seconds=seconds, max_seconds=60
    )
    outcome = measure(BenchRequest(path=str(path), runtime=SUFFIXES[path.suffix], timing=timing))
    if isinstance(outcome, Failure):
        raise SystemExit(f"{path.name}: {outcome.kind.value}: {outcome.message}")
    return outcome.latency.p50_ms


def their_p50(who: str, path: Path, seconds: float) -> float:
    """Milliseconds, from bare_loop.py."""
    command = [
        sys.executable,
        str(_BARE_LOOP),
        who,
        str(path),
        str(seconds),
        str(_WARMUP_SECONDS),
        str(_FEWEST),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{who} on {path.name}: {done.stderr[-2000:]}")
    return float(json.loads(done.stdout)["p50_ms"])


def take_turns(who: str, path: Path, rounds: int, seconds: float) -> tuple[list[float], list[float]]:
    """Ours and theirs of each round, in ms; who goes first changes from round to round."""
    ours, theirs = [], []
    for number in range(rounds):
        if number % 2 == 0:
            ours.append(our_p50(path, seconds))
        theirs.append(their_p50(who, path, seconds))
        if number % 2 == 1:
            ours.append(our_p50(path, seconds))
    return ours, theirs


def ratio(ours: list[float], theirs: list[float]) -> Ratio:
    """Ours over theirs, median over rounds, with its interval."""
    return ratio_of_rounds([[round(ms * 1e6)] for ms in ours], [[round(ms * 1e6)] for ms in theirs])


def compare(who: str, path: Path, rounds: int, seconds: float, call_ms: float) -> Figure:
    """One row. `call_ms`: what their way of calling costs more than ours."""
    ours, theirs = take_turns(who, path, rounds, seconds)
    raw = ratio(ours, theirs)
    judged = ratio([ms + call_ms for ms in ours], theirs)
    text = f"{judged.ratio - 1:+.1%} [{judged.low - 1:+.1%}, {judged.high - 1:+.1%}]"
    if call_ms:
        text += f" (raw {raw.ratio - 1:+.1%})"
    peer = "litert-benchmark" if who == "litert-benchmark" else "bare loop"
    runtime = SUFFIXES[path.suffix].value
    ours_ms, theirs_ms = statistics.median(ours), statistics.median(theirs)
    return Figure(
        what=f"p50 with {runtime}, {ours_ms:.3g} ms, against {peer}",
        asked=f"within {LIMIT:.0%}",
        measured=text,
        reached=abs(judged.ratio - 1) <= LIMIT,
        details={
            "file": path.name,
            "runtime": runtime,
            "peer": peer,
            "rounds": rounds,
            "ours_ms": ours_ms,
            "theirs_ms": theirs_ms,
            "raw_ratio": raw.ratio,
            "call_ms": call_ms,
            "ratio": judged.ratio,
            "low": judged.low,
            "high": judged.high,
        },
    )


def main() -> int:
    """Measure and print; exit code 1 if a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "edgeloop-benchmarks")
    parser.add_argument("--only", default="", help="part of the words '<file> <peer>' of the rows to measure")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows: list[tuple[str, Grade, str]] = [
        (who, grade, form)
        for who, form in (
            (RuntimeName.ONNXRUNTIME.value, "onnx"),
            (RuntimeName.LITERT.value, "tflite"),
            ("litert-benchmark", "tflite"),
        )
        for grade in GRADES
        if given.only in f"{grade.name}.{form} {who}"
    ]
    call_ms = 0.0
    if any(who == "litert-benchmark" for who, _, _ in rows):
        empty = make(EMPTY, given.models)["tflite"]
        ours, theirs = take_turns("litert-benchmark", empty, given.rounds, given.seconds)
        call_ms = statistics.median(theirs) - statistics.median(ours)
    figures = [
        compare(
            who,
            make(grade, given.models)[form],
            given.rounds,
            given.seconds,
            call_ms if who == "litert-benchmark" else 0.0,
        )
        for who, grade, form in rows
    ]
    title = "What our measuring adds"
    if call_ms:
        title += f" (a call of CompiledModel costs {call_ms * 1e3:.2f} µs more than one of Interpreter)"
    return finish(figures, title, given.json)


if __name__ == "__main__":
    sys.exit(main())
