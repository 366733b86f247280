from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.data import load_dataset
from pipeline.data.spoken_digits import BANDS, CLIP, FRAMES, SAMPLE_RATE_HZ, log_mel, mel_filters
from pipeline.errors import DataError

RECORDINGS = 14


def _write(path: Path, **changes: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1000, 12000, 10 * RECORDINGS)
    arrays = {
        "pcm": rng.integers(-9000, 9000, lengths.sum()).astype(np.int16),
        "offsets": np.cumsum([0, *lengths]),
        "labels": np.repeat(np.arange(10, dtype=np.uint8), RECORDINGS),
        "index": np.tile(np.arange(RECORDINGS), 10),
    }
    np.savez(path, **{**arrays, **changes})


def test_splits_go_by_the_recordings_number(tmp_path: Path, own_cache: Path) -> None:
    _write(tmp_path / "spoken_digits.npz")
    dataset = load_dataset("spoken-digits", tmp_path)
    assert dataset.input_shape == (1, FRAMES, BANDS) == (1, 49, 40)
    assert (len(dataset.train), len(dataset.search)) == (40, 50)
    assert not [path for path in own_cache.iterdir() if "-test-" in path.name]
    assert len(dataset.test.open()) == 50
    again = load_dataset("spoken-digits", tmp_path)
    assert np.array_equal(again.train.x, dataset.train.x)


def test_a_tone_lights_its_band_and_silence_none() -> None:
    filters = mel_filters()
    assert filters.shape == (BANDS, 257)
    assert (filters.sum(axis=1) > 0).all()
    times = np.arange(CLIP) / SAMPLE_RATE_HZ
    low, high = (
        log_mel((8000 * np.sin(2 * np.pi * hertz * times)).astype(np.int16), filters).mean(axis=0).argmax()
        for hertz in (300, 3000)
    )
    mel_share = 2595 * np.log10(1 + 3000 / 700) / (2595 * np.log10(1 + 4000 / 700))
    assert low < 10
    assert abs(high - mel_share * BANDS) <= 2
    assert not log_mel(np.zeros(100, np.int16), filters).any()


def test_a_short_clip_lies_in_the_middle() -> None:
    features = log_mel(np.full(1600, 8000, np.int16), mel_filters())
    loud = np.flatnonzero(features.max(axis=1) > 1)
    assert loud.min() + loud.max() == pytest.approx(FRAMES - 1, abs=2)
    assert len(loud) < 15


def test_damage_is_named(tmp_path: Path, own_cache: Path) -> None:
    path = tmp_path / "spoken_digits.npz"
    _write(path, index=np.arange(3))
    with pytest.raises(DataError, match="recording numbers"):
        load_dataset("spoken-digits", tmp_path)
    _write(path, pcm=np.zeros(10, np.int16))
    with pytest.raises(DataError, match="do not span its 10 samples"):
        load_dataset("spoken-digits", tmp_path)
    _write(path, index=np.zeros(10 * RECORDINGS, int))
    with pytest.raises(DataError, match="no recording is in its train split"):
        load_dataset("spoken-digits", tmp_path)


@pytest.mark.data
def test_the_real_set(data_root: Path) -> None:
    dataset = load_dataset("spoken-digits", data_root)
    assert (len(dataset.train), len(dataset.search), len(dataset.test.open())) == (2400, 300, 300)
    inputs = dataset.preprocessing.apply(dataset.train.x)
    assert abs(inputs.mean()) < 0.01
    assert abs(inputs.std() - 1) < 0.01
