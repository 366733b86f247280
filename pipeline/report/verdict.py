"""Whether the budget was met, by how much, and the card that says so for each target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.report import wording
from pipeline.result import RunResult, TargetResult


@dataclass(frozen=True)
class Check:
    """One constraint of the budget beside what was reached."""

    label: str
    reached: str
    limit: str
    margin: str
    met: bool


@dataclass(frozen=True)
class Bar:
    """A value of one form as a bar; `percent` of the widest bar."""

    kind: str
    label: str
    text: str
    percent: float


@dataclass(frozen=True)
class Card:
    """What one target got: the speed-up, the score, sizes, and the budget's constraints."""

    target: str
    met: bool
    speedup: str
    speedup_against: str
    speedup_note: str
    score: str
    score_note: str
    bars: tuple[Bar, ...]
    facts: tuple[tuple[str, str, str], ...]
    checks: tuple[Check, ...]
    misses: tuple[str, ...]
    emulated: bool
    plan_id: str
    artifact: str


@dataclass(frozen=True)
class Headline:
    """The first lines of the report."""

    title: str
    verdict: str
    met: bool
    sentence: str


def headline(result: RunResult) -> Headline:
    """What was compressed, and whether it fits the budget."""
    targets = list(result.targets)
    allowed = wording.points(result.budget.max_drop, result)
    sentence = (
        f"Compressed for {wording.listing(targets)}. The budget allows a loss of {allowed} of "
        f"{wording.metric_name(result)}. {wording.counted(result.trials, 'trial')} in "
        f"{wording.duration(result.seconds)}."
    )
    verdict = _verdict(result)
    return Headline(f"{result.model} on {result.data}", verdict, result.budget_met, sentence)


def _verdict(result: RunResult) -> str:
    """Met with how much to spare on the tightest target, or missed where and by how much."""
    missed = []
    for name, outcome in result.targets.items():
        if not outcome.budget_met:
            failed = [check for check in budget_checks(result, outcome) if not check.met]
            by = "; ".join(f"{check.label.lower()} {check.margin}" for check in failed)
            missed.append(f"{name} ({by})" if by else name)
    if missed:
        return f"Budget missed on {wording.listing(missed)}"
    if not result.budget_met:
        return "Budget missed"
    spare = min(_spare(result, outcome) for outcome in result.targets.values())
    where = "Budget met" if len(result.targets) == 1 else "Budget met on every target"
    return f"{where}, {_margin(spare, wording.points(abs(spare), result))}"


def _spare(result: RunResult, outcome: TargetResult) -> float:
    """How much more of the metric could have been lost; negative where too much was."""
    lost = wording.drop(result, outcome.float.accuracy, outcome.chosen.accuracy)
    # A difference of binary fractions: 91.60 − 90.60 must not exceed 1.00 by rounding alone.
    return round(result.budget.max_drop - lost, 6)


def cards(result: RunResult) -> tuple[Card, ...]:
    """One card for each target."""
    return tuple(_card(result, name, outcome) for name, outcome in result.targets.items())


def _card(result: RunResult, target: str, outcome: TargetResult) -> Card:
    chosen = outcome.chosen
    checks = budget_checks(result, outcome)
    explained = sum(not check.met for check in checks) >= len(outcome.misses)
    speedup, against, note = _speedup(outcome)
    return Card(
        target=target,
        met=outcome.budget_met,
        speedup=speedup,
        speedup_against=against,
        speedup_note=note,
        score=wording.score(chosen.accuracy, result),
        score_note=wording.against_float(result, outcome.float.accuracy, chosen.accuracy),
        bars=_latency_bars(outcome),
        facts=(
            ("Peak memory", wording.bytes_text(chosen.peak_memory_bytes), _before(outcome, "memory")),
            ("File size", wording.bytes_text(chosen.artifact_bytes), _before(outcome, "size")),
        ),
        checks=checks,
        # The run's own words, where the constraints above do not already say as much.
        misses=() if explained else outcome.misses,
        emulated=chosen.conditions.device.emulated,
        plan_id=outcome.plan_id,
        artifact=chosen.artifact,
    )


def _speedup(outcome: TargetResult) -> tuple[str, str, str]:
    """The ratio, what it is against, and how sure it is; plain INT8 where that was measured."""
    ratio, against = outcome.speedup_vs_plain_int8, "plain INT8"
    if ratio is None:
        ratio, against = outcome.speedup_vs_float, "float"
    if ratio is None:
        return "—", "no interleaved comparison was made", ""
    if ratio.rounds == 0:
        return f"{ratio.ratio:.2f}×", f"as fast as {against}", "no rounds were needed: it is the same file"
    note = (
        f"95 % interval {wording.interval(ratio.low, ratio.high)} from "
        f"{wording.counted(ratio.rounds, 'interleaved round')}"
    )
    if ratio.low <= 1.0 <= ratio.high:
        note += "; it holds 1, so no difference is shown"
    way = "as fast as" if ratio.low <= 1.0 <= ratio.high else "the speed of"
    return f"{ratio.ratio:.2f}×", f"{way} {against}", note


def _latency_bars(outcome: TargetResult) -> tuple[Bar, ...]:
    forms = wording.forms(outcome)
    widest = max(entry.p50_ms for entry in forms.values()) or 1.0
    return tuple(
        Bar(
            kind=kind,
            label=wording.FORM_NAMES[kind],
            text=wording.milliseconds(entry.p50_ms),
            percent=round(100 * entry.p50_ms / widest, 1),
        )
        for kind, entry in forms.items()
    )


def _before(outcome: TargetResult, what: str) -> str:
    """The same figure of the forms that the chosen one replaces."""
    said = []
    for kind, entry in wording.forms(outcome).items():
        if kind == "chosen":
            continue
        count = entry.peak_memory_bytes if what == "memory" else entry.artifact_bytes
        said.append(f"{wording.FORM_NAMES[kind]} {wording.bytes_text(count)}")
    return ", ".join(said)


def budget_checks(result: RunResult, outcome: TargetResult) -> tuple[Check, ...]:
    """Every constraint that the budget sets, with how far it is kept or missed."""
    budget, chosen = result.budget, outcome.chosen
    lost = wording.drop(result, outcome.float.accuracy, chosen.accuracy)
    spare = _spare(result, outcome)
    name = wording.metric_name(result)
    checks = [
        Check(
            label=f"{name[0].upper()}{name[1:]} loss",
            reached=wording.points(lost, result),
            limit=f"at most {wording.signed(budget.max_drop, 2)}",
            margin=_margin(spare, wording.points(abs(spare), result)),
            met=spare >= 0,
        )
    ]
    if budget.max_latency_ms is not None:
        checks.append(_at_most("p50 latency", chosen.p50_ms, budget.max_latency_ms, wording.milliseconds))
    if budget.max_peak_memory_bytes is not None:
        limit = budget.max_peak_memory_bytes
        checks.append(_at_most("Peak memory", chosen.peak_memory_bytes, limit, _whole_bytes))
    if budget.max_artifact_bytes is not None:
        checks.append(_at_most("File size", chosen.artifact_bytes, budget.max_artifact_bytes, _whole_bytes))
    if budget.min_speedup is not None:
        checks.append(_speedup_check(outcome, budget.min_speedup))
    return tuple(checks)


def _at_most(label: str, value: float, limit: float, text: Callable[[float], str]) -> Check:
    spare = limit - value
    return Check(label, text(value), f"at most {text(limit)}", _margin(spare, text(abs(spare))), spare >= 0)


def _speedup_check(outcome: TargetResult, limit: float) -> Check:
    """Against plain INT8, or against float where the target has no plain INT8 form; the label says which."""
    ratio, against = outcome.speedup_vs_plain_int8, "plain INT8"
    if ratio is None:
        ratio, against = outcome.speedup_vs_float, "float"
    label, wanted = f"Speed-up over {against}", f"at least {limit:.2f}×"
    if ratio is None:
        return Check(label, "not measured", wanted, "unknown", met=False)
    spare = ratio.ratio - limit
    return Check(
        label, f"{ratio.ratio:.2f}×", wanted, _margin(spare, f"{abs(spare):.2f}×", "too little"), spare >= 0
    )


def _margin(spare: float, text: str, beyond: str = "too much") -> str:
    return f"{text} to spare" if spare >= 0 else f"{text} {beyond}"


def _whole_bytes(count: float) -> str:
    return wording.bytes_text(int(count))
