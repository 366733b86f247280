"""What Prefect's pages are told of a run, how often, and what comes of a server that does not answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas.actions import ArtifactUpdate

from flows.compression import publication
from flows.compression.job import CompressJob
from flows.compression.milestones import PARTS, Milestones
from flows.compression.publication import Publication, artifact_key
from flows.compression.run_page import run_page
from flows.compression.trial_rows import trial_rows
from pipeline.experience import Trial, TrialLog
from pipeline.progress import Silent
from pipeline.result import RunResult

TARGET = "local-litert"
Make = Callable[..., Path]


class Clock:
    """Moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Server:
    """Keeps what it is told, takes a while for it, and answers only while it is up."""

    def __init__(self, clock: Clock) -> None:
        self.updates: list[tuple[UUID, ArtifactUpdate]] = []
        self.made: dict[str, object] = {}
        self.up = True
        self.answers_in = 0.0
        self._clock = clock

    def update_artifact(self, artifact_id: UUID, artifact: ArtifactUpdate) -> None:
        self._clock.now += self.answers_in
        if not self.up:
            raise httpx.ConnectError("refused")
        self.updates.append((artifact_id, artifact))

    def create(self, data: object, key: str, description: str) -> UUID:
        if not self.up:
            raise httpx.ConnectError("refused")
        self.made[key] = data
        return uuid4()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Stands in for Prefect's."""
    found = Server(clock)
    for kind in ("progress", "table", "markdown"):
        monkeypatch.setattr(publication, f"create_{kind}_artifact", found.create)
    return found


def job(**more: object) -> CompressJob:
    return CompressJob(model="resnet20", targets=(TARGET, "pi4-litert"), trials=4, recoveries=2, **more)


def told(server: Server, run: Path, clock: Clock, inner: Silent | None = None) -> Publication:
    """A publication of the run in `run` that is open."""
    found = Publication(inner or Silent(), job(), run, server, clock)  # type: ignore[arg-type]
    found.open()
    return found


def progress(server: Server) -> list[tuple[float, str]]:
    """Percent and words of every update of the progress."""
    return [
        (one.data, one.description or "") for _, one in server.updates if isinstance(one.data, int | float)
    ]


def test_stages_and_steps_are_told_in_words_and_percent(server: Server, clock: Clock, tmp_path: Path) -> None:
    found = told(server, tmp_path / "Run_1", clock)
    assert set(server.made) == {"progress-run-1", "trials-run-1"}
    found.stage("trials", 4)
    clock.now += 100
    found.best("trial 2: 1.50× on pi4")
    clock.now += 100
    found.advance(2, "trial 3 of 4")
    assert progress(server) == [
        (20.0, "trials"),
        (20.0, "trials. Best so far: trial 2: 1.50× on pi4"),
        (35.0, "trials: trial 3 of 4. Best so far: trial 2: 1.50× on pi4"),
    ]


def test_who_was_told_before_still_is(server: Server, clock: Clock, tmp_path: Path) -> None:
    inner = Silent()
    found = told(server, tmp_path, clock, inner)
    found.note("something")
    assert inner.notes == ["something"]
    assert found.notes is inner.notes, "the report is written from these"


@pytest.mark.parametrize(("answers_in", "fewest_seconds"), [(0.0, 2.0), (1.0, 20.0)])
def test_telling_takes_a_small_part_of_the_time(
    answers_in: float, fewest_seconds: float, server: Server, clock: Clock, tmp_path: Path
) -> None:
    found = told(server, tmp_path, clock)
    server.answers_in = answers_in
    found.stage("trials", 1000)
    started = clock.now
    for step in range(1000):
        clock.now += 0.1
        found.advance(step)
    most = (clock.now - started) / (fewest_seconds + answers_in) + 2
    assert most / 2 < len(server.updates) <= most


def test_the_table_has_the_trials_of_the_folder_and_is_sent_when_they_changed(
    server: Server, clock: Clock, unfinished: Make
) -> None:
    run = unfinished()
    found = told(server, run, clock)
    for step in range(3):
        clock.now += 100
        found.advance(step)
    tables = [json.loads(one.data) for _, one in server.updates if isinstance(one.data, str)]
    assert len(tables) == 1
    assert [(row["trial"], row["recovered"], row[f"ms on {TARGET}"]) for row in tables[0]] == [
        ("1", "", "0.1000"),
        ("2", "88.00", "0.2000"),
    ]
    TrialLog(run / "trials.jsonl").append(
        Trial.model_validate_json((run / "trials.jsonl").read_bytes().splitlines()[0])
    )
    clock.now += 100
    found.advance(4)
    assert sum(isinstance(one.data, str) for _, one in server.updates) == 2


def test_a_failed_trial_says_how(unfinished: Make) -> None:
    run = unfinished()
    stored = json.loads((run / "trials.jsonl").read_text().splitlines()[0])
    stored |= {"accuracy": None, "latency_ms": {}, "failure": {"kind": "crashed", "message": "signal 11"}}
    (row,) = trial_rows([Trial.model_validate(stored)], [TARGET])
    assert row["failure"] == "crashed: signal 11"
    assert (row["before"], row[f"ms on {TARGET}"]) == ("", "")


def test_a_server_that_does_not_answer_is_one_warning_and_asked_again_later(
    server: Server, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = told(server, tmp_path, clock)
    server.up = False
    with caplog.at_level(logging.WARNING, "flows.compression.publication"):
        for step in range(100):
            clock.now += 1.0
            found.advance(step)
    assert [record.getMessage() for record in caplog.records] == [
        "Prefect's pages do not show this run now: refused"
    ]
    assert server.updates == []
    server.up = True
    clock.now += publication.SULK_SECONDS
    found.advance(7, "again")
    assert progress(server)[-1][1] == "again"


def test_a_server_that_is_down_from_the_start_stops_nothing(
    server: Server, clock: Clock, tmp_path: Path
) -> None:
    server.up = False
    found = told(server, tmp_path, clock)
    found.stage("prepare", 2)
    found.advance(1)
    assert (server.made, server.updates) == ({}, [])


def test_a_finished_run_is_at_100_percent_with_its_page(server: Server, clock: Clock, finished: Make) -> None:
    run = finished()
    result = RunResult.model_validate_json((run / "result.json").read_text())
    found = told(server, run, clock)
    found.stage("report", 1)
    found.conclude(result, run)
    assert progress(server)[-1] == (100.0, "finished: budget met")
    assert server.made[artifact_key("result", run.name)] == run_page(result, run)


def test_the_bar_never_goes_back_and_takes_what_is_skipped_in_one_leap() -> None:
    bar, seen = Milestones(job(rehearsals=3)), []

    def stage(name: str, total: float, *steps: float) -> None:
        bar.stage(name, total)
        seen.append(bar.percent)
        for step in steps:
            bar.advance(step)
            seen.append(bar.percent)

    stage("prepare", 2, 1, 2)
    stage("first trial", 1)
    stage("probes", 0)
    stage("trials", 4, 2, 1, 4)
    stage("rehearse trial 3, 1 of 3", 1.0, 0.5, 1.0)
    stage("recover trial 3 for a, 1 of at most 2", 1.0, 1.0)
    stage("recover trial 2 for b, 1 of at most 2", 1.0, 0.5)
    stage("prove on a", 6, 6)
    stage("something new", 3, 2)
    stage("report", 1)
    assert seen == sorted(seen)
    assert seen[:4] == [0.0, 2.5, 5.0, 5.0]
    assert max(seen) == PARTS["report"][0]
    bar.finish()
    assert bar.percent == 100.0


def test_parts_of_the_bar_follow_each_other() -> None:
    ends = [0.0, *(end for _, end in PARTS.values())]
    assert [start for start, _ in PARTS.values()] == ends[:-1]
    assert ends[-1] == 100.0


def test_the_page_has_the_verdict_the_figures_the_pictures_and_the_files(finished: Make) -> None:
    run = finished()
    page = run_page(RunResult.model_validate_json((run / "result.json").read_text()), run)
    assert page.startswith("# resnet20 on digits\n\n**Budget met")
    assert f"| {TARGET} | chosen | 89.50 % | 0.200 ms | 2.00× (1.96–2.04) |" in page
    assert f"![Pareto front on {TARGET}](data:image/svg+xml;base64," in page
    assert f"[result.json]({(run / 'result.json').as_uri()})" in page
    assert "model.onnx" not in page, "only what is there"


def test_the_page_says_what_is_missed_and_who_went_away(finished: Make) -> None:
    run = finished()
    stored = json.loads((run / "result.json").read_text())
    stored |= {"budget_met": False, "lost": {"pi4": "it does not answer"}}
    stored["targets"][TARGET] |= {
        "budget_met": False,
        "misses": ["the file has 3 bytes; at most 2 is allowed"],
    }
    page = run_page(RunResult.model_validate(stored), run)
    assert "**Budget missed" in page
    assert f"- Missed on {TARGET}: the file has 3 bytes; at most 2 is allowed" in page
    assert "- pi4 went away: it does not answer" in page
