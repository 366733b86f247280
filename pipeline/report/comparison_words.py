"""Two runs in words and figures: the rows and remarks that the terminal and the page share."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.report.wording import bytes_text, duration, milliseconds, signed
from pipeline.result import Speedup
from pipeline.run_comparison import Pair, RunComparison, TargetComparison

NOTHING = "—"
Row = tuple[str, str, str, str]


def comparison_rows(found: TargetComparison, metric: str) -> list[Row]:
    """What is compared, of A, of B, and how B stands to A; each in words."""
    met = ["met" if one else "missed" for one in found.budget_met]
    speeds = [NOTHING if one is None else speedup_in_words(one) for one in found.speedup_vs_plain_int8]
    faster = "" if found.faster is None else speedup_in_words(found.faster)
    difference = (found.score.b or 0.0) - (found.score.a or 0.0)
    return [
        ("budget", met[0], met[1], ""),
        (
            metric,
            *_both(found.score, _two_digits),
            f"{'+' if difference > 0 else ''}{_two_digits(difference)}",
        ),
        ("lost", *_both(found.lost, _two_digits), ""),
        ("vs plain INT8", speeds[0], speeds[1], faster),
        ("p50", *_both(found.p50_ms, milliseconds), _ratio(found.p50_ms)),
        ("p50 of plain INT8", *_both(found.plain_p50_ms, milliseconds), _ratio(found.plain_p50_ms)),
        ("peak memory", *_both(found.peak_memory_bytes, _bytes), _ratio(found.peak_memory_bytes)),
        ("file", *_both(found.artifact_bytes, _bytes), _ratio(found.artifact_bytes)),
    ]


def run_rows(found: RunComparison) -> list[tuple[str, str, str]]:
    """What is told of the runs as a whole."""
    return [
        ("trials", *_both(found.trials, lambda value: f"{value:.0f}")),
        ("time", *_both(found.seconds, duration)),
    ]


def speed_in_words(found: TargetComparison) -> str:
    """How much faster B's file is, or why that is not known."""
    speed = found.faster
    if speed is None:
        return (
            "The p50s were taken at two times, and plain INT8 is not the same file in both runs: how much of "
            "the difference is the machine's is not known; edgeloop bench FILE --compare FILE tells."
        )
    by_way = "By way of plain INT8, measured in the same rounds by each run"
    if speed.low <= 1.0 <= speed.high:
        return f"{by_way}, no difference in speed is shown."
    factor, way = (speed.ratio, "faster") if speed.ratio > 1 else (1 / speed.ratio, "slower")
    return f"{by_way}, B's file is {factor:.2f}× {way}."


def plan_rows(found: TargetComparison) -> list[tuple[str, str, str]]:
    """Units and blocks that the two plans treat differently: name, kept in A, kept in B."""
    return [(name, *_both(pair, _share)) for name, pair in found.kept.items()]


def condition_rows(found: TargetComparison) -> list[tuple[str, str, str]]:
    """What differed in how the chosen files were measured: what, in A, in B."""
    return [(name, words.a or NOTHING, words.b or NOTHING) for name, words in found.conditions.items()]


def speedup_in_words(found: Speedup) -> str:
    """ "2.55× (2.53–2.56)"."""
    return f"{found.ratio:.2f}× ({found.low:.2f}–{found.high:.2f})"


def _both(pair: Pair, text: Callable[[float], str]) -> tuple[str, str]:
    return (
        NOTHING if pair.a is None else text(pair.a),
        NOTHING if pair.b is None else text(pair.b),
    )


def _ratio(pair: Pair) -> str:
    return "" if pair.ratio is None else f"{pair.ratio:.2f}×"


def _share(kept: float) -> str:
    return "removed" if kept == 0.0 else f"{100 * kept:.0f} %"


def _two_digits(value: float) -> str:
    return signed(value, 2)


def _bytes(value: float) -> str:
    return bytes_text(int(value))
