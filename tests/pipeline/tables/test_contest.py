from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from known_tables import known_table
from known_tasks import KnownTask, residual_task

from device_bench.errors import BadInputError
from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.report.curves import curves_svg
from pipeline.tables import contest as contest_module
from pipeline.tables.contest import Contest, TableSource, play
from pipeline.tables.curve_file import CurveFile, maker_of
from pipeline.tables.standings import Standings
from pipeline.tables.trial_task import TrialTask


@dataclass(frozen=True)
class Gone(KnownTask):
    def run(self, plan: CompressionPlan, number: int, origin: str) -> Trial:
        raise AssertionError("nothing may be run again")


@dataclass(frozen=True)
class KnownSource:
    target: str = "local-litert"
    gone: bool = False

    @property
    def fingerprint(self) -> str:
        return self.target

    def load(self) -> TrialTask:
        task = residual_task(self.target)
        return Gone(task.graph, task.target) if self.gone else task


def contest(folder: Path, trials: int = 6, gone: bool = False) -> Contest:
    sources = (KnownSource(gone=gone), KnownSource("local-onnxruntime", gone))
    return Contest(sources, ("uniform", "random"), 3, trials, folder)


def silent(done: int, total: int, last: str) -> None:
    pass


def test_every_policy_plays_every_task_from_every_seed(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    standings = play(contest(tmp_path), 1, lambda done, total, _: heard.append((done, total)))
    keys = {(curve.policy, curve.task, curve.seed) for curve in standings.curves}
    assert len(keys) == len(standings.curves) == 2 * 2 * 3
    assert heard == [(done, 12) for done in range(13)]
    assert standings.policies == ("uniform", "random")


def test_a_repeat_runs_nothing_and_says_the_same(tmp_path: Path) -> None:
    first = play(contest(tmp_path), 1, silent)
    assert play(contest(tmp_path, gone=True), 1, silent) == first


def test_a_longer_curve_answers_for_a_shorter_one(tmp_path: Path) -> None:
    long = play(contest(tmp_path, trials=6), 1, silent)
    short = play(contest(tmp_path, trials=2, gone=True), 1, silent)
    for one, other in zip(long.curves, short.curves, strict=True):
        assert one.points[:2] == other.points


def test_a_killed_contest_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = play(contest(tmp_path / "whole"), 1, silent)
    play(contest(tmp_path / "killed"), 1, silent)
    path = tmp_path / "killed" / "local-litert.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:40])
    assert play(contest(tmp_path / "killed"), 1, silent) == whole
    assert len(CurveFile(path).read()) == 6


def test_a_changed_policy_plays_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(contest(tmp_path), 1, silent)
    monkeypatch.setattr(contest_module, "maker_of", lambda name: "another")
    with pytest.raises(AssertionError, match="nothing may be run again"):
        play(contest(tmp_path, gone=True), 1, silent)


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    assert play(contest(tmp_path / "two"), 2, silent) == play(contest(tmp_path / "one"), 1, silent)


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    play(contest(tmp_path), 1, silent)
    path = tmp_path / "local-litert.jsonl"
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(BadInputError, match=r"local-litert\.jsonl, line 1 is no curve"):
        play(contest(tmp_path), 1, silent)


def test_the_best_known_front_remembers_earlier_contests(tmp_path: Path) -> None:
    play(Contest((KnownSource(),), ("greedy",), 1, 20, tmp_path), 1, silent)
    later = play(Contest((KnownSource(),), ("random",), 1, 2, tmp_path), 1, silent)
    alone = play(Contest((KnownSource(),), ("random",), 1, 2, tmp_path / "alone"), 1, silent)
    (task,) = later.tasks
    assert later.best[task] > alone.best[task]


def test_files_of_policies_count_by_their_content(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"one")
    before = maker_of(str(path))
    path.write_bytes(b"two")
    assert maker_of(str(path)) != before
    assert maker_of("random") == maker_of("uniform")
    with pytest.raises(BadInputError, match="cannot read the policy"):
        maker_of(str(tmp_path / "none.safetensors"))


@pytest.mark.parametrize(("seeds", "trials"), [(0, 5), (5, 0)])
def test_nothing_to_play_is_refused(tmp_path: Path, seeds: int, trials: int) -> None:
    with pytest.raises(BadInputError, match="must be at least 1; got 0"):
        Contest((KnownSource(),), ("random",), seeds, trials, tmp_path)


def test_an_unknown_policy_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="unknown policy 'rondom'"):
        play(Contest((KnownSource(gone=True),), ("rondom",), 1, 1, tmp_path), 1, silent)


def test_a_table_is_known_by_its_content_and_setting(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    known_table().save(path)
    one, other = TableSource(path, "local-litert@1"), TableSource(path, "local-onnxruntime@1")
    assert one.fingerprint != other.fingerprint
    assert one.fingerprint == TableSource(path, "local-litert@1", probed=False).fingerprint
    assert one.load().name == "known/made-up/local-litert@1"
    with pytest.raises(BadInputError, match="record it with"):
        _ = TableSource(tmp_path / "none", "x").fingerprint


@pytest.fixture(scope="module")
def standings(tmp_path_factory: pytest.TempPathFactory) -> Standings:
    return play(contest(tmp_path_factory.mktemp("standings"), trials=10), 1, silent)


def test_means_are_over_tasks_and_intervals_over_seeds(standings: Standings) -> None:
    random = [standings.shares("random", task, 10) for task in standings.tasks]
    found = standings.mean("random", 10)
    assert found.mean == pytest.approx(sum(map(sum, random)) / 6)
    assert found.low < found.mean < found.high
    uniform = standings.mean("uniform", 10)
    assert uniform.high == pytest.approx(uniform.low)


def test_json_has_the_means_by_policy_and_trials(standings: Standings) -> None:
    told = json.loads(json.dumps(standings.to_json()))
    assert told["mean_hypervolume"]["uniform"]["5"] == standings.mean("uniform", 5).mean
    assert set(told["mean_hypervolume"]["random"]) == {"1", "5", "10"}
    assert len(told["curves"]) == 12
    assert all(0.0 <= value <= 1.0 for curve in told["curves"] for value in curve["hypervolume"])


def test_names_that_are_not_there_are_refused(standings: Standings) -> None:
    with pytest.raises(BadInputError, match="unknown policy"):
        standings.shares("greedy", standings.tasks[0], 1)
    with pytest.raises(BadInputError, match="unknown task"):
        standings.shares("random", "elsewhere", 1)


def test_the_plot_names_every_policy_and_stays_in_its_frame(standings: Standings) -> None:
    import xml.etree.ElementTree as ET

    root = ET.fromstring(curves_svg(standings))
    names = {node.text for node in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"uniform", "random", "trials"} <= names
    for line in root.iter("{http://www.w3.org/2000/svg}polyline"):
        places = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
        assert all(0 <= x <= 720 and 0 <= y <= 420 for x, y in places)
        heights = [y for _, y in places]
        assert heights == sorted(heights, reverse=True)
