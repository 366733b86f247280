"""The guide to a runtime and a method of one's own, done block by block to a copy of the packages."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.compressor import RECIPE_FILE

CHECKOUT = Path(__file__).parents[2]
GUIDE = CHECKOUT / "docs" / "guides" / "extending.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PACKAGES = ("device_bench", "pipeline", "exporters", "flows")


@pytest.fixture
def copy(tmp_path: Path, homes: None) -> Path:
    """A folder with the packages, which Python takes before the installed ones."""
    for package in PACKAGES:
        shutil.copytree(CHECKOUT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(copy: Path, line: str) -> subprocess.CompletedProcess[str]:
    program, *words = shlex.split(line)
    command = [sys.executable, *words] if program == "python" else [sys.executable, "-m", "flows.cli", *words]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    environment.pop("PREFECT_API_URL", None)
    return subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, timeout=500, check=False
    )


@pytest.mark.slow
def test_every_block_does_what_the_guide_says(copy: Path) -> None:
    said = {}
    for kind, text in BLOCK.findall(GUIDE.read_text(encoding="utf-8")):
        if kind == "diff":
            done = subprocess.run(
                ["git", "apply", "--unsafe-paths", f"--directory={copy}", "-"],
                input=text, text=True, capture_output=True, cwd="/", check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        elif kind == "console":
            for line in text.splitlines():
                done = run(copy, line)
                assert done.returncode == 0, done.stdout + done.stderr
                said[line.split()[1]] = done.stdout
        else:
            (copy / text.splitlines()[0].removeprefix("# ")).write_text(text, encoding="utf-8")
    (measured,) = (
        json.loads(said["bench"])["results"] if "results" in said["bench"] else [json.loads(said["bench"])]
    )
    assert "local-matrix" in json.dumps(measured) and "p50_ms" in json.dumps(measured)
    (folder,) = (copy / "runs").iterdir()
    assert "multiples" in (folder / RECIPE_FILE).read_text()
    # As plain JSON: this process knows no such form.
    result = json.loads((folder / "result.json").read_text())
    # Four bits of weights, trained for one epoch, still know most digits.
    assert result["targets"]["local-onnxruntime"]["chosen"]["accuracy"] > 70.0
