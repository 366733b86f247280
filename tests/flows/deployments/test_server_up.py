"""`edgeloop server up`: one command, after which deployments can be made and fire by themselves."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from standing_desk import PATIENCE_SECONDS, Desk, desk_in

from flows.deployments.ending import outlive

CHECKOUT = Path(__file__).parents[3]
SMALL: dict[str, Any] = {
    "model": "mlp",
    "targets": ["local-onnxruntime"],
    "policy": "random",
    "trials": 1,
    "recoveries": 0,
    "budget": {"max_drop": 100},
}


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory, homes: None) -> Iterator[Desk]:
    """A desk with a server that stands, for all tests of this module."""
    with desk_in(tmp_path_factory.mktemp("desk")) as found:
        found.up()
        yield found


def test_the_screen_says_where_things_are(standing: Desk) -> None:
    record = standing.office.record()
    assert record is not None
    assert record.api_url in standing.screen
    assert "work pool        edgeloop, made now" in standing.screen
    pages = httpx.get(record.api_url.removesuffix("api"), trust_env=False, timeout=60.0)
    assert pages.status_code == 200
    assert "<title>Prefect Server</title>" in pages.text


def test_a_second_one_says_that_one_runs(standing: Desk) -> None:
    done = standing.run("edgeloop", "server", "up")
    assert done.returncode == 2, done.stdout + done.stderr
    record = standing.office.record()
    assert record is not None
    assert f"`edgeloop server up` runs already (process {record.pid}, {record.api_url})" in done.stderr


def test_prefect_finds_the_server_by_its_profile(standing: Desk) -> None:
    record = standing.office.record()
    assert record is not None
    profiles = tomllib.loads((standing.place / "prefect" / "profiles.toml").read_text())
    assert profiles["active"] == "edgeloop"
    assert profiles["profiles"]["edgeloop"]["PREFECT_API_URL"] == record.api_url


def test_a_scheduled_deployment_fires_by_itself(standing: Desk) -> None:
    standing.write_quick(SMALL, schedules="[{interval: 5}]")
    deployed = standing.run("prefect", "deploy", "--all")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr

    def fired() -> list[dict[str, Any]]:
        return [run for run in standing.flow_runs() if run["state_type"] == "COMPLETED"]

    standing.wait(fired)
    run = fired()[0]
    assert run["auto_scheduled"] is True
    assert run["name"].endswith(run["id"].replace("-", "")[:12])
    assert json.loads((standing.place / "runs" / run["name"] / "result.json").read_text())["trials"] == 1
    assert run["state"]["message"].startswith("budget ")
    line = f"compress/quick  {run['name']}  Completed: {run['state']['message']}"
    standing.wait(lambda: line in standing.screen)
    (deployment,) = standing.api("/deployments/filter")
    httpx.delete(f"{_api_url(standing)}/deployments/{deployment['id']}", trust_env=False).raise_for_status()


def test_all_deployments_of_the_checkout(standing: Desk) -> None:
    """As the README says it: in the checkout, without a question asked."""
    deployed = standing.run("prefect", "deploy", "--all", cwd=CHECKOUT)
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    told = standing.run("edgeloop", "server", "status", "--json")
    assert told.returncode == 0, told.stdout + told.stderr
    status = json.loads(told.stdout)
    assert (status["up"], status["answers"], status["worker_online"]) == (True, True, True)
    schedules = {one["name"]: one["schedules"] for one in status["deployments"]}
    assert schedules == {
        "compress/on-demand": [],
        "fleet-benchmark/daily": ["0 5 * * * UTC"],
        "meta-train/nightly": ["0 1 * * * UTC"],
    }
    found = {one["name"]: one for one in standing.api("/deployments/filter")}
    for one in found.values():
        assert one["job_variables"]["working_dir"] == str(CHECKOUT)
        assert one["job_variables"]["command"] == "python -m flows.deployments.process"
    form = found["on-demand"]["parameter_openapi_schema"]
    assert form["properties"]["job"]["anyOf"][1] == {"type": "string", "format": "path"}
    assert form["definitions"]["CompressJob"]["properties"]["trials"]["type"] == "integer"
    form = found["nightly"]["parameter_openapi_schema"]
    assert form["properties"]["experience"] == {
        "type": "boolean",
        "default": True,
        "title": "experience",
        "position": 3,
        "description": "train on the trials of all runs on this machine, too.",
    }
    assert "reptile" in form["properties"]["policy"]["enum"]


def test_what_the_form_does_not_allow_is_refused(standing: Desk) -> None:
    done = standing.run("prefect", "deployment", "run", "compress/on-demand", "-p", 'job={"trials": "many"}')
    assert done.returncode == 1, done.stdout
    assert "Validation failed" in done.stdout + done.stderr


def test_against_a_server_of_ones_own_there_is_a_pool_and_a_worker(standing: Desk, tmp_path: Path) -> None:
    theirs = _api_url(standing)
    guest = Desk(tmp_path, standing.environment | {"PREFECT_HOME": str(tmp_path / "prefect")})
    try:
        guest.up("--api-url", theirs, "--pool", "guests", "--worker", "guest")
        assert f"{theirs}, not started here" in guest.screen
        (worker,) = standing.api("/work_pools/guests/workers/filter")
        assert (worker["name"], worker["status"]) == ("guest", "ONLINE")
        assert not (tmp_path / "prefect" / "profiles.toml").exists()
        assert guest.process is not None
        assert len(psutil.Process(guest.process.pid).children()) == 1
        guest.process.terminate()
        assert guest.process.wait(PATIENCE_SECONDS) == 0, guest.everything()
    finally:
        guest.close()
    assert standing.run("edgeloop", "server", "status").returncode == 0


def test_ctrl_c_ends_all_it_started(standing: Desk) -> None:
    assert standing.process is not None
    below = psutil.Process(standing.process.pid).children(recursive=True)
    assert len(below) >= 2
    assert standing.down() == 0, standing.everything()
    assert outlive(below, seconds=10) == []
    profiles = tomllib.loads((standing.place / "prefect" / "profiles.toml").read_text())
    assert profiles["active"] == "ephemeral"
    assert "edgeloop" not in profiles["profiles"]
    told = standing.run("edgeloop", "server", "status")
    assert told.returncode == 1
    assert "`edgeloop server up` brings up a server and a worker" in told.stdout


def _api_url(desk: Desk) -> str:
    record = desk.office.record()
    assert record is not None
    return record.api_url
