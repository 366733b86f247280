"""How the report writes numbers: three significant digits for times, binary units for bytes."""

from __future__ import annotations

import math

from pipeline.result import Entry, RunResult, TargetResult

MINUS = "−"

# How a metric is named in a sentence, and the unit that follows its value.
_METRIC_NAMES = {"accuracy": "accuracy", "mse": "mean squared error", "r2": "R²", "auc": "AUC"}
_PERCENT_METRICS = {"accuracy", "auc"}

# Under a plot of trials whose original had the search split among its training samples.
SEEN = (
    "The original was trained on these samples, so final files and the budget are drawn at the test split, "
    "which none had seen; trials at the search split."
)

FORM_NAMES = {"float": "float", "plain_int8": "plain INT8", "chosen": "chosen"}


def forms(outcome: TargetResult) -> dict[str, Entry]:
    """The measured forms of a target by their keys in `result.json`, absent ones left out."""
    entries = {"float": outcome.float, "plain_int8": outcome.plain_int8, "chosen": outcome.chosen}
    return {kind: entry for kind, entry in entries.items() if entry is not None}


def metric_name(result: RunResult) -> str:
    """The metric as a sentence names it; one that is not ours keeps its own name."""
    return _METRIC_NAMES.get(result.metric, result.metric)


def score(value: float, result: RunResult) -> str:
    """A value of the run's metric with its unit: percent for accuracy and AUC, none for the others."""
    if not math.isfinite(value):
        return "not a number"
    if result.metric in _PERCENT_METRICS:
        return f"{signed(value, 2)} %"
    return signed(value, 4)


def points(value: float, result: RunResult) -> str:
    """A difference of two scores, for example "0.62 points"."""
    if result.metric in _PERCENT_METRICS:
        return f"{signed(value, 2)} {'point' if f'{value:.2f}' == '1.00' else 'points'}"
    return signed(value, 4)


def drop(result: RunResult, before: float, after: float) -> float:
    """How much worse `after` is than `before`, positive is worse whatever the metric's direction."""
    return before - after if result.higher_is_better else after - before


def against_float(result: RunResult, before: float, after: float) -> str:
    """ "0.62 points below float", "0.10 points above float" or "as good as float"."""
    lost = drop(result, before, after)
    if points(abs(lost), result) == points(0.0, result):
        return "as good as float"
    lower = after < before
    return f"{points(abs(lost), result)} {'below' if lower else 'above'} float"


def signed(value: float, digits: int) -> str:
    """A fixed number of digits, with a true minus sign and no "−0"."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        return text.removeprefix("-")
    return text.replace("-", MINUS)


def significant(value: float, digits: int = 3) -> str:
    """`value` ≥ 0 rounded to significant digits, never in exponent form: 0.124, 1.04, 12.3, 1043."""
    if not math.isfinite(value) or value <= 0:
        return "0" if value == 0 else "not a number"
    decimals = max(0, digits - 1 - math.floor(math.log10(value)))
    return f"{value:.{min(decimals, 6)}f}"


def milliseconds(value: float) -> str:
    """A latency with its unit."""
    return f"{significant(value)} ms"


def interval(low: float, high: float) -> str:
    """Two ends of an interval with as many decimals as tell them apart."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "unknown"
    decimals = max(2, 2 - math.floor(math.log10(low))) if low > 0 else 2
    while decimals < 6 and low < high and f"{low:.{decimals}f}" == f"{high:.{decimals}f}":
        decimals += 1
    return f"{low:.{min(decimals, 6)}f}–{high:.{min(decimals, 6)}f}"


def bytes_text(count: int) -> str:
    """Bytes in binary units: 812 B, 112 KiB, 3.12 MiB."""
    if count < 1024:
        return f"{count} B"
    power = min(3, (count.bit_length() - 1) // 10)
    return f"{significant(count / 1024**power)} {('KiB', 'MiB', 'GiB')[power - 1]}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.42 s, 12.3 s, 4 min 08 s, 1 h 12 min."""
    if seconds < 59.95:
        return f"{significant(seconds)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def listing(names: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def counted(count: int, noun: str) -> str:
    """ "1 trial", "24 trials"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
