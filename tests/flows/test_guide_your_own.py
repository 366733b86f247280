"""The guide to one's own model and data, block by block as it stands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.result import RunResult

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "your-own.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_every_block_does_what_the_guide_says(
    tmp_path: Path, edgeloop: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    ran = []
    for kind, text in BLOCK.findall(GUIDE.read_text(encoding="utf-8")):
        if kind in ("python", "toml"):
            name = text.splitlines()[0].removeprefix("# ")
            (tmp_path / name).write_text(text, encoding="utf-8")
            continue
        for line in text.splitlines():
            program, *words = shlex.split(line)
            if program == "python":
                done = subprocess.run(
                    [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300
                )
                assert done.returncode == 0, done.stderr
            else:
                assert program == "edgeloop"
                # The first run stands for whichever run a reader has.
                runs = sorted((tmp_path / "runs").glob("2*")) if (tmp_path / "runs").exists() else []
                found = [word.replace("runs/first", str(runs[0])) if runs else word for word in words]
                done = edgeloop(*found, cwd=tmp_path)
                assert done.returncode in (0, 1), done.stdout + done.stderr
            ran.append(program)
    assert ran == ["python", "python", "edgeloop", "edgeloop", "edgeloop"]
    results = [
        RunResult.model_validate_json(path.read_text())
        for path in sorted((tmp_path / "runs").glob("2*/result.json"))
    ]
    own, job, onnx = results
    assert own.model == job.model == "mynets:build"
    assert own.removed.keys() == own.targets.keys()
    assert own.targets["local-onnxruntime"].float.accuracy > 80.0
    assert set(job.targets) == {"local-onnxruntime", "local-litert"}
    assert job.trials == 2
    assert onnx.model.endswith("model.onnx")
    assert all(point.failure is None for result in results for point in result.points)
