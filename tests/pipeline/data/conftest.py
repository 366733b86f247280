"""The folder of the real data, where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def data_root() -> Path:
    """Skips where EDGELOOP_DATA names no folder."""
    given = os.environ.get("EDGELOOP_DATA")
    if not given or not Path(given).is_dir():
        pytest.skip("EDGELOOP_DATA names no folder with the data sets")
    return Path(given)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for this test alone."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("EDGELOOP_CACHE", str(folder))
    return folder
