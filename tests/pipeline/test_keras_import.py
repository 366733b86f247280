from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from device_bench.errors import BadInputError, MissingExtraError
from pipeline import keras_import
from pipeline.errors import ModelError
from pipeline.model import load_model
from pipeline.model_source import is_keras, is_path
from pipeline.task import ModelSpec
from pipeline.tracing import trace

INSTALLED = all(find_spec(module) is not None for module in keras_import.NEEDED)
# Each conversion loads TensorFlow anew.
with_keras = [
    pytest.mark.slow,
    pytest.mark.skipif(not INSTALLED, reason="the extra keras is not installed"),
]


def _spec(path: Path, shape: tuple[int, ...] = (4,), outputs: int = 10) -> ModelSpec:
    return ModelSpec(source=str(path), input_shape=shape, outputs=outputs)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keras files of many kinds."""
    folder = tmp_path_factory.mktemp("keras")
    command = [sys.executable, str(Path(__file__).with_name("keras_files.py")), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_files_and_folders_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("saved", "cnn"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()
    (tmp_path / "empty").mkdir()
    assert [is_keras(source) for source in ("a.keras", "a.h5", "saved")] == [True] * 3
    assert [is_keras(source) for source in ("cnn", "empty", "a.onnx", "m:build")] == [False] * 4
    assert is_path("a.onnx")
    assert not is_path("cnn")
    with pytest.raises(BadInputError, match=r"unknown model 'empty'.*a SavedModel folder"):
        load_model(_spec(Path("empty")))


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras_import, "find_spec", lambda module: None)
    (tmp_path / "net.keras").touch()
    with pytest.raises(MissingExtraError, match=r"tensorflow is not installed.*edgeloop\[keras\]"):
        load_model(_spec(tmp_path / "net.keras"))


def test_a_missing_file_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none.keras does not exist; give a .keras or .h5 file"):
        load_model(_spec(tmp_path / "none.keras"))


class TestWithTensorFlow:
    """What only shows where the extra is installed."""

    pytestmark = with_keras

    @pytest.mark.parametrize(
        ("source", "net", "prunable", "norms"),
        [
            ("pictures.keras", "pictures", 2, 2),
            ("pictures.h5", "pictures", 2, 2),
            ("saved", "pictures", 2, 2),
            ("inverted.keras", "inverted", 3, 2),
            ("table.keras", "table", 2, 0),
        ],
    )
    def test_it_computes_what_keras_does_and_prunes(
        self, source: str, net: str, prunable: int, norms: int, files: Path
    ) -> None:
        data = np.load(files / f"{net}.npz")
        x, y = torch.from_numpy(data["x"]), data["y"]
        module = load_model(_spec(files / source, tuple(x.shape[1:]), y.shape[1]))
        with torch.no_grad():
            given = module(x).numpy()
        if net == "pictures":
            given, y = given - given.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
        np.testing.assert_allclose(given, y, atol=1e-4)
        kinds = [type(layer).__name__ for layer in module.modules()]
        assert not {"OnnxTranspose", "Softmax"} & set(kinds)
        assert sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()) == norms
        assert sum(unit.prunable for unit in trace(module, tuple(x.shape[1:])).units) == prunable

    @pytest.mark.parametrize(
        ("source", "words"),
        [
            ("two_inputs.keras", "has 2 inputs; a model must have one"),
            ("two_outputs.keras", "gives float32 .*, float32 .*; a model must give one"),
            ("code.keras", "holds Python code in a Lambda layer, which is never run"),
            ("code.h5", "holds Python code in a Lambda layer, which is never run"),
            ("custom.keras", "needs Doubled, a layer that Keras does not bring"),
            ("words.keras", "takes int32 of shape"),
            ("no_zip.keras", "cannot be read as a Keras file"),
            ("broken", "cannot be read as a SavedModel"),
            ("bare", "has the signatures: none; it must have one named serving_default"),
            ("table.keras", r"takes samples of shape \[6\]; the data's are \[4\]"),
        ],
    )
    def test_what_cannot_be_used_is_refused(self, source: str, words: str, files: Path) -> None:
        with pytest.raises(ModelError, match=f"{source}.*{words}"):
            load_model(_spec(files / source))
