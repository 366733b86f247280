"""A real run, killed and gone on with by the very command that the list shows; its report written anew."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

PATIENCE_SECONDS = 300.0
GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "results.md"


@pytest.mark.slow
def test_from_a_kill_to_the_report_by_what_the_commands_say(
    ask: Callable[..., Result],
    runs: Path,
    start: Callable[..., subprocess.Popen[str]],
    edgeloop: Callable[..., subprocess.CompletedProcess[str]],
    only_run: Callable[[Path], Path],
    weights: Callable[[str], Path],
) -> None:
    process = start(
        *("compress", "--model", "mlp", "--data", "digits", "--weights", weights("mlp"), "--out", runs),
        *("--target", "local-onnxruntime", "--policy", "meta", "--trials", 2, "--max-drop", 100),
        *("--recoveries", 1, "--recovery-epochs", 1),
        cwd=runs.parent,
    )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not list(runs.glob("*/trials.jsonl")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (told,) = json.loads(ask("runs", "list", "--json").stdout)["runs"]
        assert (told["state"], told["resume"]) == ("running", "")
    finally:
        process.kill()
        process.communicate()
    (told,) = json.loads(ask("runs", "list", "--json").stdout)["runs"]
    assert told["state"] == "unfinished"
    program, *arguments = shlex.split(told["resume"])
    assert program == "edgeloop"

    done = edgeloop(*arguments, cwd=runs.parent)

    assert done.returncode in (0, 1), done.stdout + done.stderr
    (told,) = json.loads(ask("runs", "list", "--json").stdout)["runs"]
    assert (told["state"], told["trials"], told["resume"]) == ("finished", 2, "")
    run = only_run(runs)
    table = GUIDE.read_text(encoding="utf-8").split("## The files")[1].split("## ")[0]
    named = re.findall(r"`([^`<>*]+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)))
    assert len(named) > 10
    assert [name for name in named if not (run / name).exists()] == [], "the guide names what is not there"
    first = (run / "report.html").read_bytes()
    ask("report")
    assert (run / "report.html").read_bytes() == first
    assert run.name in ask("runs", "show", run.name).stdout
