"""A run is a Prefect flow run: well named in Prefect's pages, silent on the screen, alone on the network."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from device_bench.errors import RunError
from flows.server import TemporaryServer

# Loaded by every Python process of the run: writes down whom it connects to or asks the name of.
WATCH = """
import os, sys

def watch(event, details):
    if event == "socket.connect" and isinstance(details[1], tuple):
        said = str(details[1][0])
    elif event == "socket.getaddrinfo":
        said = str(details[0])
    else:
        return
    descriptor = os.open(os.environ["WATCH_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (said + "\\\\n").encode())
    os.close(descriptor)

sys.addaudithook(watch)
"""


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory,
    edgeloop: Callable[..., subprocess.CompletedProcess[str]],
    weights: Callable[[str], Path],
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run in which every process notes its connections in `connections`."""
    place = tmp_path_factory.mktemp("watched")
    (place / "sitecustomize.py").write_text(WATCH.replace("\\\\", "\\"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(place))
        patch.setenv("WATCH_FILE", str(place / "connections"))
        patch.setenv("PREFECT_HOME", str(place / "prefect"))
        # Whoever turns to the proxy is on the way out; also who takes it for the way to this machine.
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            patch.setenv(name, "http://192.0.2.1:9")
        done = edgeloop(
            *("compress", "--model", "mlp", "--data", "digits", "--weights", weights("mlp")),
            *("--target", "local-onnxruntime", "--max-drop", 100, "--trials", 2, "--out", "runs"),
            *("--recoveries", 1, "--recovery-epochs", 1),
            cwd=place,
        )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return place, done


def test_screen_has_no_line_of_prefect(watched: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = watched
    assert done.stderr == ""
    for words in ("prefect", "Task run", "Flow run", "Finished in state", "temporary server", "http://"):
        assert words.lower() not in done.stdout.lower().replace("loading prefect", "")
    assert "trial 2 of 2" in done.stdout
    assert "result.json" in done.stdout


def test_nothing_leaves_the_machine(watched: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    place, _ = watched
    asked = set((place / "connections").read_text().split())
    assert "127.0.0.1" in asked, "the watch works"
    assert asked <= {"127.0.0.1", "localhost", "::1", "None"}


def rows(place: Path, query: str) -> list[str]:
    """The first column of what Prefect's own database holds."""
    with sqlite3.connect(place / "prefect" / "prefect.db") as database:
        found = [row[0] for row in database.execute(query)]
    database.close()
    return found


def test_runs_read_well_in_prefect(
    watched: tuple[Path, subprocess.CompletedProcess[str]], only_run: Callable[[Path], Path]
) -> None:
    place, _ = watched
    run = only_run(place / "runs")
    assert rows(place, "select name from flow") == ["compress"]
    assert rows(place, "select name from flow_run") == [run.name]
    assert rows(place, "select state_name from flow_run") == ["Completed"]
    tasks = rows(place, "select name from task_run")
    probes = [json.loads(line) for line in (run / "probes.jsonl").read_text().splitlines()]
    assert {"prepare", "baseline", "trial 1", "prove on local-onnxruntime", "report"} <= set(tasks)
    assert sum(name.startswith("probe ") for name in tasks) == len(probes)
    keys = rows(place, "select key from artifact")
    assert sorted(keys) == [f"{kind}-{run.name}" for kind in ("progress", "result", "trials")]
    (told,) = rows(place, "select data from artifact where type = 'progress'")
    assert float(told) == 100.0
    (table,) = rows(place, "select data from artifact where type = 'table'")
    assert [row["trial"] for row in json.loads(json.loads(table))] == ["1", "2"]
    messages = rows(place, "select message from log")
    assert any(message.startswith("trial 1: ") for message in messages)


def test_a_server_of_the_users_own_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.compression import start

    for name in start.PREFECT_SETTINGS:
        monkeypatch.setenv(name, os.environ.get(name, start.PREFECT_SETTINGS[name]))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setattr(start, "TemporaryServer", lambda: pytest.fail("a server was started"))
    assert start.prepare_prefect() is None


def test_a_server_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "file" / "prefect"))
    server = TemporaryServer()
    try:
        with pytest.raises(RunError, match=r"did not start: .*Error.*PREFECT_HOME.*PREFECT_API_URL"):
            server.wait_ready()
    finally:
        server.stop()
