"""`--teacher`: further teachers beside the original, and what is refused before anything is trained."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from pipeline.zoo import build

Edgeloop = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_recovery_learns_from_both(
    tmp_path: Path, edgeloop: Edgeloop, weights: Callable[[str], Path]
) -> None:
    (tmp_path / "plan.toml").write_text('[units."features.0"]\nkeep_ratio = 0.5\n')
    mlp = weights("mlp")
    done = edgeloop(
        *("compress", "--model", "cnn", "--weights", weights("cnn"), "--plan", "plan.toml", "--out", "runs"),
        *("--teacher", f"mlp={mlp}", "--recovery-epochs", 1, "--target", "local-onnxruntime"),
        *("--max-drop", 100),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    (asked,) = json.loads((run / "job.json").read_text())["teachers"]
    assert (asked["model"], asked["weights"], asked["share"]) == ("mlp", str(mlp), 1.0)
    # What was remembered is a mixture of distributions; the original's own logits would not sum to one.
    answers = np.load(run / "cache" / "teacher-view-00.npy")
    asked_for = answers[np.isfinite(answers[:, 0])]
    assert len(asked_for) > 1000
    np.testing.assert_allclose(np.exp(asked_for / 4.0).sum(1), 1.0, atol=1e-3)


@pytest.mark.parametrize(
    ("teacher", "told"),
    [
        ("mlp", "teacher mlp has no weights of its own to teach by"),
        ("mlp=nowhere.safetensors", "weights file nowhere.safetensors does not exist"),
        ("nothing.onnx", "model file nothing.onnx does not exist"),
        ("reznet20=x.safetensors", "resnet20"),
        ("mlp=other.safetensors", "other.safetensors"),
    ],
)
def test_teachers_of_no_use(
    tmp_path: Path, edgeloop: Edgeloop, weights: Callable[[str], Path], teacher: str, told: str
) -> None:
    # A teacher of seven classes for data of ten.
    save_file(build("mlp", (1, 8, 8), 7).state_dict(), tmp_path / "other.safetensors")
    done = edgeloop(
        *("compress", "--model", "cnn", "--weights", weights("cnn"), "--teacher", teacher, "--out", "runs"),
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert told in " ".join((done.stdout + done.stderr).split())
    assert not list(tmp_path.glob("runs/*/trials.jsonl"))
