"""`edgeloop personalize` on a real, small run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from device_bench.errors import BadInputError
from flows.training import personalize
from flows.training.personalize import PersonalizeOrder, personalize_run
from pipeline.compressor import load_compressed
from pipeline.evaluation import predict
from pipeline.personalization import Method, Personalised

TARGET = "local-onnxruntime"
QUICK = Method("reptile", episodes=4, steps=30)


@pytest.fixture(scope="module")
def run(
    edgeloop: Callable[..., Any],
    only_run: Callable[[Path], Path],
    weights: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A finished run of an untrained network: what it will know, it has from the user's samples."""
    folder = tmp_path_factory.mktemp("run")
    flags = ["--model", "mlp", "--data", "digits", "--weights", weights("mlp"), "--policy", "uniform"]
    flags += ["--trials", 1, "--recoveries", 0, "--max-drop", 100, "--target", TARGET]
    done = edgeloop("compress", *flags, cwd=folder)
    assert done.returncode in (0, 1), done.stderr
    return only_run(folder / "runs")


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred digits, white on black turned round."""
    bunch = load_digits()
    path = tmp_path_factory.mktemp("mine") / "mine.npz"
    np.savez(path, x=(16 - bunch.images[:200]).astype(np.uint8)[:, None], y=bunch.target[:200])
    return path


def order(run: Path, samples: Path, **changes: Any) -> PersonalizeOrder:
    return PersonalizeOrder(**{"run": run, "samples": samples, "shots": 5, "method": QUICK} | changes)


def test_the_command(run: Path, mine: Path, edgeloop: Callable[..., Any]) -> None:
    flags = ["--data", mine, "--shots", 5, "--episodes", 4, "--steps", 30, "--json"]
    done = edgeloop("personalize", run, *flags, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((run / "personalized" / "result.json").read_text())
    assert (found["support"], found["query"], found["learner"]) == (50, 150, "reptile")
    assert set(found["targets"]) == {TARGET}
    one = found["targets"][TARGET]
    assert one["kept"] and one["query_after"] > one["query_before"] + 20.0
    assert 0.0 < one["change_low"] <= one["query_after"] - one["query_before"] <= one["change_high"]
    assert f"personalized/{TARGET}/model.int8.onnx" in one["files"]
    assert all((run / file).is_file() for file in one["files"])
    for heard in (f"reptile for {TARGET}", "made-up user 4 of 4", f"proof on {TARGET}", "kept"):
        assert heard in done.stderr


def test_the_module_is_the_file(run: Path, mine: Path) -> None:
    """What `load_compressed` rebuilds from the folder is the adapted network."""
    assert personalize_run(order(run, mine), as_json=False) == 0
    folder = run / "personalized" / TARGET
    module = load_compressed(folder)
    with np.load(mine) as arrays:
        outputs = predict(module, arrays["x"], personalize.load_dataset("digits").preprocessing)
        assert np.mean(outputs.argmax(1) == arrays["y"]) > 0.4
    own = load_file(run / "targets" / TARGET / "model.safetensors")
    assert any((tensor != own[name]).any() for name, tensor in module.state_dict().items())


def test_worse_is_not_kept(
    run: Path,
    mine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Labels are the run's own model's answers, which an emptied one cannot give."""

    def emptied(module: Any, *rest: Any) -> Personalised:
        for tensor in module.parameters():
            tensor.data.zero_()
        return Personalised(module, 0.1, True, ())

    monkeypatch.setattr(personalize, "personalise", emptied)
    module = load_compressed(run / "targets" / TARGET)
    with np.load(mine) as arrays:
        x = arrays["x"]
    answers = predict(module, x, personalize.load_dataset("digits").preprocessing).argmax(1)
    counts = np.bincount(answers, minlength=10)
    enough = (counts >= 6)[answers]
    np.savez(tmp_path / "own.npz", x=x[enough], y=answers[enough])
    assert personalize_run(order(run, tmp_path / "own.npz", shots=1), as_json=False) == 1
    out = capsys.readouterr().out
    assert f"not kept on {TARGET}: worse on the query" in out
    assert "you gave no sample of" in out
    assert [path.name for path in (run / "personalized").iterdir()] == ["result.json"]


def test_what_is_no_finished_run(run: Path, mine: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"holds no run \(no job.json\); give a folder such as runs/<id>"):
        personalize_run(order(tmp_path, mine), as_json=False)
    shutil.copyfile(run / "job.json", tmp_path / "job.json")
    with pytest.raises(BadInputError, match=r"is not finished .* edgeloop compress --resume"):
        personalize_run(order(tmp_path, mine), as_json=False)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(BadInputError, match=r"result.json cannot be read"):
        personalize_run(order(tmp_path, mine), as_json=False)


def test_samples_that_cannot_be_used_leave_the_run_as_it_was(run: Path, mine: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in run.iterdir())
    with pytest.raises(BadInputError, match="does not exist"):
        personalize_run(order(run, tmp_path / "none.npz"), as_json=False)
    with pytest.raises(BadInputError, match="shots must be at least 1; got 0"):
        personalize_run(order(run, mine, shots=0), as_json=False)
    with pytest.raises(BadInputError, match="fewer than 50 shots"):
        personalize_run(order(run, mine, shots=50), as_json=False)
    assert sorted(path.name for path in run.iterdir()) == before
