from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.cache import cache_folder, cached_array


class Maker:
    """Counts how often the array was made."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> np.ndarray:
        self.calls += 1
        return np.arange(6, dtype=np.uint8).reshape(2, 3)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.npz"
    path.write_bytes(b"content")
    return path


def test_what_was_made_once_is_read_back_until_the_source_changes(own_cache: Path, source: Path) -> None:
    make = Maker()
    first = cached_array(source, "kind", make)
    second = cached_array(source, "kind", make)
    assert make.calls == 1
    assert np.array_equal(first, second)
    assert [path.suffix for path in own_cache.iterdir()] == [".npy"]
    cached_array(source, "another", make)
    assert make.calls == 2
    source.write_bytes(b"other content")
    cached_array(source, "kind", make)
    assert make.calls == 3


def test_a_damaged_entry_is_made_again(own_cache: Path, source: Path) -> None:
    make = Maker()
    cached_array(source, "kind", make)
    entry = next(own_cache.iterdir())
    entry.write_bytes(entry.read_bytes()[:-3])
    assert cached_array(source, "kind", make).sum() == 15
    assert make.calls == 2


def test_an_unwritable_folder_is_told_and_harmless(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder should be")
    monkeypatch.setenv("EDGELOOP_CACHE", str(blocked))
    with caplog.at_level(logging.WARNING):
        assert cached_array(source, "kind", Maker()).shape == (2, 3)
    assert "EDGELOOP_CACHE" in caplog.text


def test_the_folder_is_the_users_own_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGELOOP_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "edgeloop"
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/edgeloop")
