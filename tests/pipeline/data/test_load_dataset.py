from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_bench.errors import BadInputError
from pipeline.data import DATASETS, load_dataset
from pipeline.errors import DataError

OWN = """
import numpy as np
from pipeline.data.base import Dataset, Metric, Preprocessing, SealedSplit, Split

def load():
    split = Split(np.zeros((4, 3), np.float32), np.zeros(4, np.float32))
    return Dataset("own", Metric.MSE, split, split, SealedSplit(lambda: split), Preprocessing(layout="NC"))

def wrong():
    return 7

def broken():
    raise KeyError("lost")

number = 3
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_data_sets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")  # restores sys.path afterwards
    return "own_data_sets"


def test_digits_need_no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGELOOP_DATA", raising=False)
    first, other = load_dataset("digits"), load_dataset("digits", seed=1)
    assert (len(first.train), len(first.search)) == (1168, 270)
    assert first.input_shape == (1, 8, 8)
    assert first.train.x.max() == 16
    assert first.fingerprint != other.fingerprint
    test = first.test.open()
    assert np.array_equal(test.x, other.test.open().x)
    everything = np.concatenate([first.train.x, first.search.x, test.x]).reshape(-1, 64)
    assert len(everything) == 1797
    assert len(np.unique(everything, axis=0)) == 1797


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(BadInputError, match=r"unknown data set 'cifar10-jpg'; did you mean cifar10-jpeg"):
        load_dataset("cifar10-jpg")


@pytest.mark.parametrize("name", [name for name, entry in DATASETS.items() if entry.needs_root])
def test_a_missing_root_says_how_to_give_it(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("EDGELOOP_DATA", raising=False)
    with pytest.raises(DataError, match="give --data-root or set EDGELOOP_DATA"):
        load_dataset(name)
    with pytest.raises(DataError, match="does not exist"):
        load_dataset(name, tmp_path / "nowhere")
    monkeypatch.setenv("EDGELOOP_DATA", str(tmp_path))
    with pytest.raises(DataError, match=str(tmp_path)):
        load_dataset(name)


def test_a_data_set_of_ones_own(own_module: str) -> None:
    dataset = load_dataset(f"{own_module}:load")
    assert dataset.input_shape == (3,)
    assert dataset.outputs == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_data_sets:wrong", "returned int"),
        ("own_data_sets:broken", "KeyError: 'lost'"),
        ("own_data_sets:number", "no callable 'number'; it has: .*load"),
        ("own_data_sets:", 'is no "module:callable"'),
        ("no_such_module_here:load", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_callable_that_does_not_serve(own_module: str, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(name)
