from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.data import load_dataset
from pipeline.data.base import Metric
from pipeline.errors import DataError

X = np.arange(100 * 2 * 3 * 3, dtype=np.float32).reshape(100, 2, 3, 3)
Y = np.arange(100) % 4
BOTH = np.stack([Y, np.arange(100) % 3], 1)


def saved(folder: Path, **arrays: np.ndarray) -> str:
    path = folder / "mine.npz"
    np.savez(path, **({"x": X, "y": Y} | arrays))
    return str(path)


def test_a_fifth_each_is_held_out_by_class(tmp_path: Path) -> None:
    data = load_dataset(saved(tmp_path))
    test = data.test.open()
    assert [len(split) for split in (data.train, data.search, test)] == [64, 16, 20]
    assert np.bincount(test.y).tolist() == [5] * 4
    assert (data.name, data.metric, data.labels) == ("mine.npz", Metric.ACCURACY, ("0", "1", "2", "3"))
    assert (data.input_shape, data.preprocessing.layout) == ((2, 3, 3), "NCHW")


def test_the_seed_draws_the_search_split_and_never_the_test_split(tmp_path: Path) -> None:
    one, other = (load_dataset(saved(tmp_path), seed=seed) for seed in (0, 1))
    assert not np.array_equal(one.search.x, other.search.x)
    assert np.array_equal(one.test.open().x, other.test.open().x)
    parts = np.concatenate([one.train.x, one.search.x, load_dataset(saved(tmp_path)).test.open().x])
    assert np.array_equal(np.unique(parts), np.unique(X))


def test_given_splits_are_kept(tmp_path: Path) -> None:
    more = {"x_test": X[:7], "y_test": Y[:7], "x_search": X[7:12], "y_search": Y[7:12]}
    data = load_dataset(saved(tmp_path, **more))
    assert [len(split) for split in (data.train, data.search, data.test.open())] == [100, 5, 7]


def test_samples_are_as_the_model_takes_them_unless_told_otherwise(tmp_path: Path) -> None:
    assert np.array_equal(load_dataset(saved(tmp_path)).preprocessing.apply(X), X)
    told = {"scale": np.float32(0.5), "mean": np.array([1.0, 2.0]), "std": np.array(4.0)}
    found = load_dataset(saved(tmp_path, **told)).preprocessing.apply(X)
    wanted = (X * 0.5 - np.array([1.0, 2.0]).reshape(1, 2, 1, 1)) / 4.0
    assert found == pytest.approx(wanted)


def test_values_are_predicted_by_mse_or_as_told(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 100)
    data = load_dataset(saved(tmp_path, x=X[:, :, 0, 0], y=values))
    assert (data.metric, data.labels, data.outputs, data.preprocessing.layout) == (Metric.MSE, (), 1, "NC")
    assert load_dataset(saved(tmp_path, y=values, metric=np.array("r2"))).metric is Metric.R2


def test_other_samples_have_another_fingerprint(tmp_path: Path) -> None:
    one, other = (load_dataset(saved(tmp_path, x=x)).fingerprint for x in (X, X + 1))
    assert one != other


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"z": X}, "an unknown array z; allowed: x, y, x_test"),
        ({"x_test": X}, "x_test or y_test without the other"),
        ({"x": X[:, 0, 0, 0]}, r"x in .* is float32 \[100\]; it must hold numbers"),
        ({"x": X.astype(str)}, "it must hold numbers"),
        ({"y": Y[:50]}, "for each of the 100 samples"),
        ({"y": Y - 1}, "has class -1; classes are numbered from 0"),
        ({"x": np.where(X > 5, np.nan, X)}, "x in .* holds NaN or infinity"),
        ({"x_test": X[:5, :1], "y_test": Y[:5]}, r"a sample of x_test .* is \[1, 3, 3\], of x \[2, 3, 3\]"),
        ({"x_test": X[:5], "y_test": Y[:5] / 2}, "a class number .or everywhere a value"),
        ({"x": X[:2], "y": Y[:2]}, "2 samples to split, too few"),
        ({"labels": np.array(["a", "b"])}, "give a name for each of 4 classes"),
        ({"metric": np.array("mse")}, "for class numbers in y it is accuracy or auc"),
        ({"std": np.array(0.0)}, "std in .* must be finite, and above 0"),
        ({"mean": np.zeros(3)}, "mean in .* must hold 1 or 2 numbers"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, arrays: dict[str, np.ndarray], told: str) -> None:
    with pytest.raises(DataError, match=told):
        load_dataset(saved(tmp_path, **arrays))


def test_anomalies_are_told_by_one_score_or_by_classes_with_names(tmp_path: Path) -> None:
    odd = {"y": (Y == 1).astype(np.int64), "metric": np.array("auc")}
    one = load_dataset(saved(tmp_path, **odd))
    two = load_dataset(saved(tmp_path, **odd, labels=np.array(["usual", "odd"])))
    assert (one.outputs, two.outputs) == (1, 2)
    assert one.metric is two.metric is Metric.AUC


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_dataset(str(tmp_path / "none.npz"))
    (tmp_path / "bad.npz").write_bytes(b"not a zip")
    with pytest.raises(DataError, match="cannot be read as"):
        load_dataset(str(tmp_path / "bad.npz"))
    np.savez(tmp_path / "half.npz", x=X)
    with pytest.raises(DataError, match="no array named y"):
        load_dataset(str(tmp_path / "half.npz"))


def test_several_heads_have_a_class_each(tmp_path: Path) -> None:
    data = load_dataset(saved(tmp_path, y=BOTH, heads=np.array([4, 3])))
    assert data.heads == (4, 3) and data.outputs == 7 and data.metric is Metric.ACCURACY
    assert data.labels == ("0:0", "0:1", "0:2", "0:3", "1:0", "1:1", "1:2")
    assert data.train.y.shape == (64, 2) and data.test.open().y.shape == (20, 2)
    # Every combination is held out in its share: 100 samples, 12 combinations.
    counts = np.unique(data.search.y, axis=0, return_counts=True)[1]
    assert len(counts) == 12 and counts.max() - counts.min() <= 1
    named = load_dataset(saved(tmp_path, y=BOTH, heads=np.array([4, 3]), labels=np.array(list("abcdxyz"))))
    assert named.labels == tuple("abcdxyz")


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"y": Y}, r"y of mine.npz is int64 \[64\], and it has 2 heads; .* \[n, 2\]"),
        ({"y": BOTH[:, :1]}, r"it has 2 heads; .* \[n, 2\]"),
        ({"y": BOTH / 2}, "metric of mine.npz is 'mse'; with heads it is accuracy"),
        ({"heads": np.array([4, 2])}, "has class 2 for head 1, whose classes are 0 to 1"),
        (
            {"heads": np.array([4, 1])},
            r"heads of mine.npz are \[4, 1\]; give the number of classes, 2 or more",
        ),
        ({"heads": np.array(7)}, r"heads in .* are int64 \[\]; give the number of classes of each task"),
        ({"heads": np.array([4.0, 3.0])}, "heads in .* are float64"),
        ({"metric": np.array("auc")}, "metric of mine.npz is 'auc'; with heads it is accuracy"),
        ({"labels": np.array(list("abcdefgh"))}, "labels of mine.npz are 8; its 2 heads need 7"),
    ],
)
def test_heads_that_do_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], told: str) -> None:
    with pytest.raises(DataError, match=told):
        load_dataset(saved(tmp_path, **{"y": BOTH, "heads": np.array([4, 3]), **arrays}))


def test_two_classes_a_sample_need_heads(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="with an array heads, a class number for each of several tasks"):
        load_dataset(saved(tmp_path, y=BOTH))
