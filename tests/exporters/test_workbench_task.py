"""Anyone's model tried for real; only the clock is made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from make_believe_bench import MakeBelieveBench
from safetensors.torch import save_file

from device_bench.errors import BadInputError
from device_bench.protocol import Failure, FailureKind
from exporters import candidates
from exporters.held_out import held_out_sources
from exporters.workbench_task import WorkbenchTask
from pipeline.policy import load_policy
from pipeline.tables.curve import curve_of, known_points, run_policy
from pipeline.zoo import build

LIST = """
[[task]]
model = "cnn"
weights = "cnn.safetensors"
data = "mine.npz"
target = "local-onnxruntime"
"""


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("held")
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    np.savez(folder / "mine.npz", x=rng.normal(size=(120, 1, 8, 8)).astype(np.float32), y=y)
    torch.manual_seed(0)
    state = build("cnn", (1, 8, 8), 3).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "cnn.safetensors")
    (folder / "held.toml").write_text(LIST, encoding="utf-8")
    return folder


def task_of(held: Path, kept: Path, bench: MakeBelieveBench, *, probed: bool = False) -> WorkbenchTask:
    (source,) = held_out_sources(held / "held.toml", kept, None, probed=probed)
    return source.load()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> MakeBelieveBench:
    made_up = MakeBelieveBench()
    # What is not measured cannot be profiled either.
    made_up.profile = lambda request: Failure(kind=FailureKind.UNSUPPORTED, message="no")  # type: ignore[method-assign, assignment]
    monkeypatch.setattr(candidates, "bench_for", lambda target: made_up)
    return made_up


def test_a_plan_is_built_and_measured_once_also_after_a_kill(
    held: Path, tmp_path: Path, bench: MakeBelieveBench
) -> None:
    task = task_of(held, tmp_path, bench)
    first = run_policy(load_policy("random"), task, 3, 0)
    assert task.name == "cnn/mine/local-onnxruntime@1"
    assert all(trial.failure is None and trial.latency_ms for trial in first)
    asked = len(bench.requests)
    again = task_of(held, tmp_path, bench)
    assert run_policy(load_policy("random"), again, 3, 0) == first
    assert len(bench.requests) == asked
    assert known_points(again) == list(curve_of(again, "x", 0, first).points)


def test_effects_are_measured_where_they_are_wanted(
    held: Path, tmp_path: Path, bench: MakeBelieveBench
) -> None:
    assert task_of(held, tmp_path, bench).context.effects == {}
    context = task_of(held, tmp_path, bench, probed=True).context
    changeable = {name for name, keeps in context.space.choices.items() if len(keeps) > 1}
    assert {change.unit for change in context.effects} == changeable
    assert context.chance == pytest.approx(100 / 3, abs=5)


def test_a_target_that_vanishes_is_tried_again_another_day(
    held: Path, tmp_path: Path, bench: MakeBelieveBench
) -> None:
    gone = Failure(kind=FailureKind.UNREACHABLE, message="the board does not answer")
    bench.outcomes = dict.fromkeys(range(3, 100), gone)
    trials = run_policy(load_policy("uniform"), task_of(held, tmp_path, bench), 4, 0)
    kinds = [trial.failure.kind if trial.failure else None for trial in trials]
    assert kinds == [None, *[FailureKind.UNREACHABLE] * 3]
    bench.outcomes = {}
    later = run_policy(load_policy("uniform"), task_of(held, tmp_path, bench), 4, 0)
    assert [trial.failure for trial in later] == [None] * 4


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "task in .*: Field required"),
        ("[[task", "is not valid TOML"),
        (LIST + 'colour = "red"\n', r"task\.1\.colour in .*: a task has model, data, weights, target"),
        (LIST + "threads = 0\n", r"task\.1\.threads"),
        (LIST + LIST, "cnn/mine/local-onnxruntime@1 stands more than once"),
        (LIST.replace("local-onnxruntime", "mars"), "mars"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "held.toml").write_text(text, encoding="utf-8")
    with pytest.raises(BadInputError, match=told):
        held_out_sources(tmp_path / "held.toml", tmp_path, None, probed=True)
