"""How two runs differ: what each target got, how much of that is the plan's doing, and what else differed.

Two runs were measured at two times, and a shared machine drifts between them. Each run, though, compared its
chosen file with plain INT8 by interleaved rounds. Where that is one and the same file in both runs, the
ratio of the two speed-ups is what the plans differ by, whatever the machine did meanwhile:

    B over A = speed-up of B / speed-up of A

Its interval: the two are independent, so on the logarithmic scale their half-widths h add as
sqrt(h_A^2 + h_B^2) (propagation of independent errors; JCGM 100:2008, 5.1.2).
"""

from __future__ import annotations

from math import exp, log, sqrt

from pydantic import Field

from device_bench.protocol import Conditions, Record
from pipeline.plan import CompressionPlan
from pipeline.result import Entry, RunResult, Speedup, TargetResult

_OF_DEVICE = ("hostname", "machine", "system", "cpu_model", "cpu_count", "memory_bytes", "isa", "emulated")
_OF_MEASUREMENT = (
    "runtime",
    "runtime_version",
    "accelerator",
    "threads",
    "affinity",
    "governor",
    "frequency_mhz",
    "temperature_c",
    "load_1m",
    "undelegated_operators",
    "network_isolated",
)
# Frequency, temperature and load never read the same twice.
READING_GRAIN = 0.1


class Pair(Record):
    """The same figure of both runs; None where a run does not have it."""

    a: float | None
    b: float | None

    @property
    def ratio(self) -> float | None:
        """B as a multiple of A."""
        return None if not self.a or self.b is None else self.b / self.a


class WordPair(Record):
    """The same thing of both runs, in words; empty where a run does not have it."""

    a: str
    b: str


class TargetComparison(Record):
    """One target in both runs.

    `lost`: points of the metric below float, on the test split; the other pairs are of the chosen file.
    `plain_p50_ms`: of the plain INT8 file, which tells how the machine fared. `faster`: how much faster B's
    chosen file is than A's, by way of plain INT8; None where that is not one file in both, or not measured.
    `kept`: by unit, the share of its width that stays, where the two plans differ; a removed block has 0.
    `conditions`: what differed in how the chosen files were measured.
    """

    budget_met: tuple[bool, bool]
    score: Pair
    lost: Pair
    p50_ms: Pair
    peak_memory_bytes: Pair
    artifact_bytes: Pair
    speedup_vs_plain_int8: tuple[Speedup | None, Speedup | None]
    plain_p50_ms: Pair
    faster: Speedup | None = None
    same_plan: bool
    kept: dict[str, Pair] = Field(default_factory=dict)
    conditions: dict[str, WordPair] = Field(default_factory=dict)


class RunComparison(Record):
    """Two runs; `only_a` and `only_b` are targets that the other run does not have."""

    a: str
    b: str
    metric: str
    same_model_and_data: bool
    trials: Pair
    seconds: Pair
    targets: dict[str, TargetComparison]
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()


def compare_results(a: RunResult, b: RunResult) -> RunComparison:
    """What B found beside what A found."""
    same = (a.model, a.data) == (b.model, b.data)
    return RunComparison(
        a=a.run_id,
        b=b.run_id,
        metric=a.metric if a.metric == b.metric else f"{a.metric} / {b.metric}",
        same_model_and_data=same,
        trials=Pair(a=a.trials, b=b.trials),
        seconds=Pair(a=a.seconds, b=b.seconds),
        targets={
            name: _compare(a.targets[name], b.targets[name], _signs(a, b))
            for name in a.targets
            if name in b.targets
        },
        only_a=tuple(name for name in a.targets if name not in b.targets),
        only_b=tuple(name for name in b.targets if name not in a.targets),
    )


def _signs(a: RunResult, b: RunResult) -> tuple[float, float]:
    return 1.0 if a.higher_is_better else -1.0, 1.0 if b.higher_is_better else -1.0


def _compare(a: TargetResult, b: TargetResult, signs: tuple[float, float]) -> TargetComparison:
    plain_a, plain_b = a.plain_int8, b.plain_int8
    comparable = plain_a is not None and plain_b is not None and _is_one_file(plain_a, plain_b)
    return TargetComparison(
        budget_met=(a.budget_met, b.budget_met),
        score=Pair(a=a.chosen.accuracy, b=b.chosen.accuracy),
        lost=Pair(
            a=signs[0] * (a.float.accuracy - a.chosen.accuracy),
            b=signs[1] * (b.float.accuracy - b.chosen.accuracy),
        ),
        p50_ms=Pair(a=a.chosen.p50_ms, b=b.chosen.p50_ms),
        peak_memory_bytes=Pair(a=a.chosen.peak_memory_bytes, b=b.chosen.peak_memory_bytes),
        artifact_bytes=Pair(a=a.chosen.artifact_bytes, b=b.chosen.artifact_bytes),
        speedup_vs_plain_int8=(a.speedup_vs_plain_int8, b.speedup_vs_plain_int8),
        plain_p50_ms=Pair(
            a=None if plain_a is None else plain_a.p50_ms, b=None if plain_b is None else plain_b.p50_ms
        ),
        faster=_quotient(b.speedup_vs_plain_int8, a.speedup_vs_plain_int8) if comparable else None,
        same_plan=a.plan_id == b.plan_id,
        kept=_kept(a.plan, b.plan),
        conditions=differing_conditions(a.chosen.conditions, b.chosen.conditions),
    )


def _is_one_file(a: Entry, b: Entry) -> bool:
    """True if both are the same plain INT8 export, measured in the same way.

    The files themselves may be gone. Equal size, score on the test split and runtime leave no other
    explanation that people meet: another network, other weights or another exporter change one of them.
    """
    first, second = a.conditions, b.conditions
    return (
        (a.artifact_bytes, a.accuracy) == (b.artifact_bytes, b.accuracy)
        and (first.runtime, first.runtime_version, first.accelerator, first.threads)
        == (second.runtime, second.runtime_version, second.accelerator, second.threads)
        and first.device.cpu_model == second.device.cpu_model
    )


def _quotient(over: Speedup | None, under: Speedup | None) -> Speedup | None:
    """`over` / `under` with its interval."""
    if over is None or under is None:
        return None
    ratio = over.ratio / under.ratio
    half = sqrt(_half_width(over) ** 2 + _half_width(under) ** 2)
    return Speedup(
        ratio=ratio,
        low=ratio * exp(-half),
        high=ratio * exp(half),
        rounds=min(over.rounds, under.rounds),
    )


def _half_width(speedup: Speedup) -> float:
    """Of the interval, on the logarithmic scale."""
    return log(speedup.high / speedup.low) / 2


def _kept(a: CompressionPlan, b: CompressionPlan) -> dict[str, Pair]:
    """What each plan keeps of the units and blocks that they treat differently."""
    removed = {name: Pair(a=_stays(name, a), b=_stays(name, b)) for name in sorted({*a.removed, *b.removed})}
    units = {name: Pair(a=_ratio(name, a), b=_ratio(name, b)) for name in sorted({*a.units, *b.units})}
    return {name: pair for name, pair in (removed | units).items() if pair.a != pair.b}


def _stays(block: str, plan: CompressionPlan) -> float:
    return 0.0 if block in plan.removed else 1.0


def _ratio(unit: str, plan: CompressionPlan) -> float:
    return plan.units[unit].keep_ratio if unit in plan.units else 1.0


def differing_conditions(a: Conditions, b: Conditions) -> dict[str, WordPair]:
    """What differs in two measurements' conditions, by name; readings only where by more than a tenth."""
    found = {}
    for name, (first, second) in {
        **{f"device {name}": (getattr(a.device, name), getattr(b.device, name)) for name in _OF_DEVICE},
        **{name.replace("_", " "): (getattr(a, name), getattr(b, name)) for name in _OF_MEASUREMENT},
    }.items():
        if _differ(first, second):
            found[name] = WordPair(a=_in_words(first), b=_in_words(second))
    return found


def _differ(first: object, second: object) -> bool:
    if isinstance(first, float) and isinstance(second, float):
        return abs(first - second) > READING_GRAIN * max(abs(first), abs(second))
    return first != second


def _in_words(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
