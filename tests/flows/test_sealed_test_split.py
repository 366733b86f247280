"""The test split is opened once, after everything was decided; model and data are the user's own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

OWN = """
from dataclasses import replace
from pathlib import Path

from torch import nn

from pipeline.data import load_dataset
from pipeline.data.base import Dataset, SealedSplit

HERE = Path(__file__).parent


def load() -> Dataset:
    digits = load_dataset("digits")

    def open_test():
        (log,) = HERE.glob("runs/*/trials.jsonl")
        opened = HERE / f"opened-{len(list(HERE.glob('opened-*')))}"
        opened.write_bytes(log.read_bytes())
        return digits.test.open()

    return replace(digits, name="own", test=SealedSplit(open_test))


def build(input_shape, outputs):
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 16, outputs),
    )
"""


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, edgeloop: Callable[..., subprocess.CompletedProcess[str]]
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder with the user's module and a run in it, which was asked for what no model reaches."""
    place = tmp_path_factory.mktemp("own")
    (place / "own.py").write_text(OWN)
    done = edgeloop(
        *("compress", "--model", "own:build", "--data", "own:load", "--out", "runs", "--json"),
        *("--target", "local-onnxruntime", "--trials", 3, "--recoveries", 2, "--recovery-epochs", 1),
        *("--min-speedup", 1000, "--max-drop", 50, "--policy", "random"),
        cwd=place,
    )
    return place, done


def test_opened_once_after_the_last_decision(
    finished: tuple[Path, subprocess.CompletedProcess[str]], only_run: Callable[[Path], Path]
) -> None:
    place, done = finished
    opened = [path.read_bytes() for path in place.glob("opened-*")]
    assert len(opened) == 1, done.stderr
    final = (only_run(place / "runs") / "trials.jsonl").read_bytes()
    assert final.count(b"\n") >= 4, "three trials and at least one recovery"
    assert opened[0] == final


def test_a_budget_nobody_meets(
    finished: tuple[Path, subprocess.CompletedProcess[str]], only_run: Callable[[Path], Path]
) -> None:
    place, done = finished
    assert done.returncode == 1, done.stderr
    result = json.loads((only_run(place / "runs") / "result.json").read_text())
    assert result["budget_met"] is False
    found = result["targets"]["local-onnxruntime"]
    ratio = found["speedup_vs_plain_int8"]["ratio"]
    assert f"it is {ratio:.2f}× as fast as plain INT8; 1000.00× is asked for" in found["misses"]
    assert "budget missed on local-onnxruntime" in done.stderr
    assert "1000.00× is asked for" in done.stderr


def test_json_alone_on_standard_output(
    finished: tuple[Path, subprocess.CompletedProcess[str]], only_run: Callable[[Path], Path]
) -> None:
    place, done = finished
    run = only_run(place / "runs")
    assert json.loads(done.stdout) == json.loads((run / "result.json").read_text())
    assert done.stdout.startswith("{")
    assert done.stdout.endswith("}\n")
    assert "run folder" in done.stderr
