from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from device_bench.errors import BadInputError
from device_bench.protocol import DeviceInfo, RuntimeName
from flows.cli import app
from flows.measuring.calibrate import calibrate_target, show_summary
from pipeline.latency_model.accuracy import errors_of
from pipeline.latency_model.records import CalibrationHeader, Summary
from pipeline.latency_model.store import CalibrationFile

DEVICE = DeviceInfo(
    hostname="board", machine="aarch64", system="Linux", cpu_model="A72", cpu_count=4, memory_bytes=1 << 32
)


def test_unknown_targets_are_named() -> None:
    with pytest.raises(BadInputError, match="local-onnx"):
        calibrate_target("local-onnx", 1, resume=False, as_json=False)


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_minutes_must_be_some(minutes: float) -> None:
    with pytest.raises(BadInputError, match="minutes must be above 0"):
        calibrate_target("local-litert", minutes, resume=False, as_json=False)


def test_the_command_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app(["calibrate", "--target", "nowhere"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "nowhere" in said


def test_the_table_shows_shares_errors_and_ranks(tmp_path: Path) -> None:
    header = CalibrationHeader(
        target="pi4",
        runtime=RuntimeName.LITERT,
        runtime_version="ai-edge-litert 2.3.0",
        accelerator="cpu",
        threads=4,
        device=DEVICE,
    )
    file = CalibrationFile.create(tmp_path / "pi4.jsonl", header)
    nets = errors_of([1.04, 2.0, 3.3, 4.0], [1.0, 2.0, 3.0, 4.0])
    zoo = errors_of([0.8], [1.0])
    console = Console(width=160, record=True)
    summary = Summary(spread=(0.9, 1.25), by_kind={"all": nets}, by_family={"vit": zoo})
    show_summary(console, file, summary)
    text = console.export_text()
    rows = [line.split() for line in text.splitlines()]
    assert ["nets:", "all", "4", "75%", "100%", "100%", "2.0%", "+2.0%", "1.000"] in [
        [word for word in row if word not in ("│", "┃")] for row in rows
    ]
    assert ["compressed:", "vit", "1", "0%", "0%", "100%", "20.0%", "-20.0%"] in [
        [word for word in row if word not in ("│", "┃")] for row in rows
    ]
    assert "0.90 to 1.25 times what was predicted" in text
    assert str(file.path) in text.replace("\n", "")


def test_a_summary_is_json_that_is_read_again() -> None:
    summary = Summary(spread=(0.9, 1.25), by_kind={"all": errors_of([1.0], [1.0])}, by_family={})
    assert Summary.model_validate(json.loads(summary.model_dump_json())) == summary
