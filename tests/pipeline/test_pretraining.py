from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from device_bench.errors import RunError
from pipeline import pretraining
from pipeline.data import load_dataset
from pipeline.data.base import Dataset, SealedSplit
from pipeline.evaluation import evaluate
from pipeline.methods import recovery
from pipeline.model import load_model
from pipeline.pretraining import trained_weights
from pipeline.task import ModelSpec

SPEC = ModelSpec(source="mlp", input_shape=(1, 8, 8), outputs=10)


class Closed:
    """A split that nobody may look into."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"training read the search split ({name})")

    def __len__(self) -> int:
        raise AssertionError("training read the search split")


def no_training(*_: object) -> None:
    raise AssertionError("it was trained again")


def silent(share: float, text: str) -> None:
    """Nobody watches."""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(recovery, "native_bf16", lambda: False)
    monkeypatch.setattr(pretraining, "SAMPLES_SEEN", 20_000)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


def test_a_network_is_trained_once_and_found_again(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    path = trained_weights(SPEC, digits, 0, lambda share, _: told.append(share))
    assert told[-1] == 1.0
    assert path.parent == tmp_path / "cache" / "weights"
    assert path.name.startswith("mlp-digits-")
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    module = load_model(SPEC.model_copy(update={"weights": str(path)}))
    assert evaluate(module, digits.search, digits.metric, digits.preprocessing) > 90
    monkeypatch.setattr(pretraining, "recover_", no_training)
    assert trained_weights(SPEC, digits, 0, silent) == path


def test_neither_search_nor_test_takes_part(digits: Dataset) -> None:
    def sealed() -> None:
        raise AssertionError("training read the test split")

    closed = replace(digits, search=Closed(), test=SealedSplit(sealed))  # type: ignore[arg-type]
    assert trained_weights(SPEC, closed, 0, silent).exists()


def test_the_same_seed_trains_the_same_weights(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_file(trained_weights(SPEC, digits, 0, silent))
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path / "other"))
    torch.manual_seed(123)
    second = load_file(trained_weights(SPEC, digits, 0, silent))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_another_seed_or_data_set_is_another_file(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "recover_", lambda *_: None)
    other = replace(digits, fingerprint="other")
    spec = SPEC.model_copy(update={"outputs": 11})
    paths = {
        trained_weights(SPEC, digits, 0, silent),
        trained_weights(SPEC, digits, 1, silent),
        trained_weights(SPEC, other, 0, silent),
        trained_weights(spec, digits, 0, silent),
    }
    assert len(paths) == 4


@pytest.mark.parametrize(("samples", "epochs"), [(500, 6), (20_000, 17), (10**9, 60)])
def test_small_data_is_seen_more_often_within_bounds(
    samples: int, epochs: int, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    lessons: list[recovery.Lesson] = []
    monkeypatch.setattr(pretraining, "SAMPLES_SEEN", samples)
    monkeypatch.setattr(pretraining, "recover_", lambda _, lesson, __: lessons.append(lesson))
    trained_weights(SPEC, digits, 0, silent)
    assert lessons[0].choice.epochs == epochs == min(60, max(6, round(samples / len(digits.train))))
    assert lessons[0].teacher is None


def test_a_cache_that_cannot_be_written_is_a_failure_of_the_run(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(pretraining, "recover_", lambda *_: None)
    with pytest.raises(RunError, match="cannot write"):
        trained_weights(SPEC, digits, 0, silent)
