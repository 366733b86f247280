"""The extra `keras`, in a fresh virtual environment: it installs beside the rest, and what needs it works."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from test_packaging import ROOT, install

# The environment takes 5 GiB, and what pip unpacks on the way as much as half of that.
NEEDED_BYTES = 9 << 30
pytestmark = [pytest.mark.venv, pytest.mark.slow]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with all that TensorFlow has to live beside."""
    free = shutil.disk_usage(tmp_path_factory.getbasetemp()).free
    if free < NEEDED_BYTES:
        pytest.skip(
            f"needs {NEEDED_BYTES >> 30} GiB on the disk for TensorFlow and the rest; {free >> 30} are free"
        )
    return install(tmp_path_factory.mktemp("keras"), ".[pipeline,keras,dev]") / "python"


def _said(*command: str | Path) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=1800, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_tensorflow_fits_beside_the_rest(python: Path) -> None:
    assert "No broken requirements" in _said(python, "-m", "pip", "check")


def test_keras_files_come_in(python: Path) -> None:
    tests = [
        ROOT / "tests" / "pipeline" / "test_keras_import.py",
        ROOT / "tests" / "flows" / "test_keras_in.py",
    ]
    said = _said(python, "-m", "pytest", "-p", "no:cacheprovider", "-m", "slow", "-rs", *tests)
    assert "skipped" not in said


def test_int8_is_as_good_as_by_tensorflow_s_own_converter(python: Path) -> None:
    rows = json.loads(_said(python, ROOT / "benchmarks" / "keras_check.py", "--json"))["rows"]
    assert {row["net"] for row in rows} == {"plain", "separable"}
    for row in rows:
        assert abs(row["int8_edgeloop"] - row["int8_tensorflow"]) <= 0.3
        assert abs(row["int8_edgeloop_in_tensorflow"] - row["int8_tensorflow"]) <= 0.3
        # A net that learnt nothing would agree with anything.
        assert row["int8_tensorflow"] > 95
