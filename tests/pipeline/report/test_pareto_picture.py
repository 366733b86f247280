"""The Pareto plot as a picture of its own."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from pipeline.report import wording
from pipeline.report.pareto import pareto_plot
from pipeline.report.pareto_picture import pareto_svg
from pipeline.result import RunResult

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("target", ["local-onnxruntime", "local-litert"])
def test_every_measured_trial_and_every_form_is_in_it(target: str, run_result: RunResult) -> None:
    picture = ElementTree.fromstring(pareto_svg(run_result, target))
    titles = [title.text or "" for title in picture.iter(f"{SVG}title")]
    measured = [point for point in run_result.points if point.failure is None]
    assert sum(title.startswith("Trial ") for title in titles) == len(measured)
    assert [title.split(" · ")[0] for title in titles[-3:]] == ["Float", "Plain INT8", "Chosen"]
    assert picture.get("role") == "img"
    assert target in (picture.get("aria-label") or "")


def test_names_are_text_and_not_markup(run_result: RunResult) -> None:
    name = "<script>&\"'"
    renamed = run_result.model_copy(
        update={
            "targets": {name: run_result.targets["local-litert"]},
            "points": tuple(
                point.model_copy(update={"latency_ms": {name: 0.2}, "origin": name})
                for point in run_result.points
            ),
        }
    )
    picture = ElementTree.fromstring(pareto_svg(renamed, name))
    assert picture.find(f".//{SVG}script") is None
    assert name in "".join(picture.itertext())


def test_it_stands_alone_and_equal_input_gives_equal_text(run_result: RunResult) -> None:
    text = pareto_svg(run_result, "local-litert")
    assert text == pareto_svg(run_result, "local-litert")
    assert "href" not in text
    assert text.count("http") == 1, "the namespace alone"
    assert len(text) < 20_000


def test_a_run_without_trials_has_its_forms(run_result: RunResult) -> None:
    bare = run_result.model_copy(update={"points": ()})
    picture = ElementTree.fromstring(pareto_svg(bare, "local-litert"))
    assert len(list(picture.iter(f"{SVG}title"))) == 3


def test_an_original_that_had_seen_the_search_split_is_compared_on_the_test_split(
    run_result: RunResult,
) -> None:
    target = "local-litert"
    usual = pareto_plot(run_result, target)
    seen = pareto_plot(run_result.model_copy(update={"search_was_seen": True}), target)
    found = run_result.targets[target]
    assert found.float.parity is not None and found.float.parity.metric_artifact != found.float.accuracy
    assert wording.SEEN in seen.summary and wording.SEEN not in usual.summary
    assert (
        f"float at {wording.milliseconds(found.float.p50_ms)} and {found.float.accuracy:.2f}" in seen.summary
    )
    # The budget lies below float by what the test split may lose.
    height = {mark.kind: mark.y for mark in seen.references}["float"]
    assert seen.budget_y is not None and seen.budget_y > height
    assert usual.seen == "" and seen.test_scored == ()
