"""`make demo`: what a newcomer runs first must compress."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.result import RunResult

MAKEFILE = Path(__file__).parents[2] / "Makefile"
# Of plain INT8's file. A good choice leaves a sixth; one that hardly changes anything leaves nine tenths and
# meets the budget all the same.
MOST_BYTES = 0.5


@pytest.mark.slow
def test_files_of_the_demo_are_less_than_half_of_plain_int8s(
    edgeloop: Callable[..., subprocess.CompletedProcess[str]],
    only_run: Callable[[Path], Path],
    tmp_path: Path,
) -> None:
    makefile = MAKEFILE.read_text(encoding="utf-8")
    found = re.search(r"^demo:.*\n\t@\$\(BIN\)/edgeloop (.*)$", makefile, re.MULTILINE)
    assert found is not None

    done = edgeloop(*shlex.split(found[1]), cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    run = only_run(tmp_path / "runs")
    result = RunResult.model_validate_json((run / "result.json").read_text(encoding="utf-8"))
    assert set(result.targets) == {"local-onnxruntime", "local-litert"}
    for name, target in result.targets.items():
        assert target.budget_met, name
        assert target.chosen.artifact_bytes < MOST_BYTES * target.plain_int8.artifact_bytes, name
