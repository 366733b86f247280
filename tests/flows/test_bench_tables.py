"""What a table of measurements must not hide: what did not settle, what is emulated, what cannot be told."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from device_bench.protocol import (
    Comparison,
    Conditions,
    DeviceInfo,
    Energy,
    Failure,
    FailureKind,
    Latency,
    Measurement,
    Memory,
    RuntimeName,
)
from flows.measuring.bench_tables import show_comparisons, show_outcomes, verdict

DEVICE = DeviceInfo(
    hostname="board", machine="aarch64", system="Linux", cpu_model="A72", cpu_count=4, memory_bytes=1 << 30
)
LATENCY = Latency(
    samples=2,
    min_ms=1,
    mean_ms=1.5,
    std_ms=0.7,
    p50_ms=1.5,
    p90_ms=2,
    p95_ms=2,
    p99_ms=2,
    p50_low_ms=1,
    p50_high_ms=2,
)


def conditions(emulated: bool = False, accelerator: str = "cpu") -> Conditions:
    """Of a run on one thread."""
    return Conditions(
        device=DEVICE.model_copy(update={"emulated": emulated}),
        runtime=RuntimeName.LITERT,
        runtime_version="2.3",
        accelerator=accelerator,
        threads=1,
    )


def measurement(**fields: object) -> Measurement:
    """An ordinary one, but for these fields."""
    given = {
        "samples_ns": (1_000_000, 2_000_000),
        "latency": LATENCY,
        "memory": Memory(peak_bytes=1 << 20, file_bytes=2048),
        "conditions": conditions(),
    }
    return Measurement(**(given | fields))


def comparison(speedup: float, low: float, high: float, emulated: bool = False) -> Comparison:
    """Two files whose speeds have this ratio."""
    return Comparison(
        speedup=speedup, low=low, high=high, rounds=3, first=LATENCY, second=LATENCY,
        conditions=conditions(emulated), warnings=("a warning",),
    )  # fmt: skip


def row(show: object, *arguments: object) -> str:
    """The shown table's line of the target "pi", and what stands below the table."""
    text = io.StringIO()
    show(Console(file=text, width=200), *arguments)  # type: ignore[operator]
    return "\n".join(line for line in text.getvalue().splitlines() if line.lstrip().startswith("pi"))


def test_an_ordinary_measurement_has_no_marks() -> None:
    shown = row(show_outcomes, Path("m.tflite"), {"pi": measurement()})
    assert shown.lstrip().startswith("pi ")
    assert "(" not in shown.replace("thread(s)", "")
    assert " 1.5000 " in shown


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"settled": False}, "pi (did not settle)"),
        ({"conditions": conditions(emulated=True)}, "pi (emulated)"),
        ({"settled": False, "conditions": conditions(emulated=True)}, "pi (did not settle, emulated)"),
        ({"conditions": conditions(accelerator="cuda")}, "litert 2.3 on cuda, 1 thread(s)"),
        ({"instructions": 1234567}, "1,234,567"),
        ({"energy": Energy(source="RAPL", mean_mj=4.5)}, "4.5"),
        ({"warnings": ("the fan is off",)}, "pi: the fan is off"),
    ],
    ids=str,
)
def test_what_is_worth_knowing_is_in_the_table(fields: dict[str, object], words: str) -> None:
    assert words in row(show_outcomes, Path("m.tflite"), {"pi": measurement(**fields)})


def test_every_figure_is_whole_on_a_terminal_of_80_characters() -> None:
    text = io.StringIO()
    show_outcomes(Console(file=text, width=80), Path("m.tflite"), {"local-onnxruntime": measurement()})
    line = next(
        line for line in text.getvalue().splitlines() if line.lstrip().startswith("local-onnxruntime ")
    )
    assert "…" not in line and len(line.split()) == 7


def test_a_long_failure_is_told_whole_below() -> None:
    message = "[bold] is not markup; " + "word " * 40 + "end"
    failure = Failure(kind=FailureKind.CRASHED, message=message)
    for show, files in ((show_outcomes, ["a.onnx"]), (show_comparisons, ["a.onnx", "b.onnx"])):
        shown = row(show, *map(Path, files), {"pi": failure})
        assert "crashed" in shown
        assert "pi: [bold] is not markup" in shown


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (comparison(1.5, 1.4, 1.6), "b is 1.50× as fast"),
        (comparison(0.5, 0.4, 0.6), "a is 2.00× as fast"),
        (comparison(1.01, 0.99, 1.03), "cannot be told apart"),
        (comparison(1.01, 1.0, 1.03), "cannot be told apart"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_verdict_of_a_comparison(found: Comparison, words: str) -> None:
    assert verdict(found, "a", "b") == words


def test_an_emulated_comparison_is_marked() -> None:
    files = Path("x/m.onnx"), Path("y/m.onnx")
    shown = row(show_comparisons, *files, {"pi": comparison(2, 1.9, 2.1, emulated=True)})
    assert "pi (emulated)" in shown
    assert "y/m.onnx is 2.00× as fast" in shown, "files of one name are told apart by their folders"
    assert "pi: a warning" in shown
