"""The whole page: what it holds, and that it asks for nothing from outside."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from device_bench.errors import BadInputError, RunError
from pipeline.report import render_report, write_report
from pipeline.result import RunResult

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Outline(HTMLParser):
    """Collects elements and their text, and checks that tags nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.mismatches: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.mismatches.append(tag)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of every element of that name."""
        return [attributes for name, attributes in self.found if name == tag]


def outline(html: str) -> Outline:
    """The parsed page."""
    parser = Outline()
    parser.feed(html)
    parser.close()
    return parser


def test_page_is_well_formed_small_and_asks_for_nothing(
    run_result: RunResult, raw_samples: dict[str, list[int]]
) -> None:
    html = render_report(run_result, raw_samples)
    page = outline(html)
    assert page.mismatches == []
    assert page.open == []
    assert len(html.encode()) < 1_000_000
    assert not re.search(r"https?://", html)
    assert not re.search(r"@import|url\(", html)
    assert page.all("link") == page.all("img") == page.all("iframe") == []
    assert [attributes for attributes in page.all("script") if attributes] == []


def test_text_of_a_run_is_never_markup(run_result: RunResult) -> None:
    hostile = run_result.model_copy(update={"model": '<img src=x onerror="alert(1)">', "data": "</title><b>"})
    html = render_report(hostile)
    assert "<img" not in html
    assert "</title><b>" not in html
    assert "&lt;script&gt;alert(" in html  # from the notes


def test_every_figure_is_named_and_every_data_table_has_caption_and_scopes(
    run_result: RunResult, raw_samples: dict[str, list[int]]
) -> None:
    html = render_report(run_result, raw_samples)
    page = outline(html)
    assert len(page.all("svg")) == 5
    assert all(svg.get("aria-label") for svg in page.all("svg"))
    assert len(page.all("caption")) == len(page.all("table")) > 0
    assert all(cell.get("scope") for cell in page.all("th"))


def test_marks_flags_and_captions_tell_what_happened(run_result: RunResult) -> None:
    html = render_report(run_result)
    trials = [a for a in outline(html).all("g") if a.get("data-trial")]
    assert len(trials) == 2 * 24  # two of 26 failed, and there are two targets
    assert html.count(">did not settle<") == 2  # in the measurements and in their conditions
    assert "2 of 26 trials failed" in html
    assert "timed_out: no answer within 180 s" in html
    assert "emulated device" not in html


def test_emulated_device_is_marked_wherever_its_times_stand(run_result: RunResult) -> None:
    outcome = run_result.targets["local-litert"]
    seen = outcome.chosen.conditions
    emulated = seen.model_copy(update={"device": seen.device.model_copy(update={"emulated": True})})
    chosen = outcome.chosen.model_copy(update={"conditions": emulated})
    targets = {**run_result.targets, "local-litert": outcome.model_copy(update={"chosen": chosen})}
    html = render_report(run_result.model_copy(update={"targets": targets}))
    assert "come from an emulated device" in html
    assert html.count('class="flag">emulated<') == 3  # card, measurement, conditions


def test_warnings_of_the_bench_stand_under_the_table(run_result: RunResult) -> None:
    outcome = run_result.targets["local-litert"]
    chosen = outcome.chosen.model_copy(update={"warnings": ("3 % of the samples are outliers",)})
    targets = {**run_result.targets, "local-litert": outcome.model_copy(update={"chosen": chosen})}
    html = render_report(run_result.model_copy(update={"targets": targets}))
    assert "† local-litert, chosen:</b> 3 % of the samples are outliers" in html
    assert html.count('href="#warnings"') == 1
    assert 'href="#warnings"' not in render_report(run_result)


def test_bare_run_without_trials_units_parity_or_plain_int8_still_reads(run_result: RunResult) -> None:
    outcome = run_result.targets["local-onnxruntime"]
    bare = outcome.model_copy(
        update={
            "float": outcome.float.model_copy(update={"parity": None}),
            "chosen": outcome.chosen.model_copy(update={"parity": None}),
            "plain_int8": None,
            "speedup_vs_plain_int8": None,
        }
    )
    html = render_report(
        run_result.model_copy(
            update={"targets": {"one": bare}, "points": (), "units": (), "removed": {}, "notes": ()}
        )
    )
    assert outline(html).mismatches == []
    assert "no interleaved comparison was made" in html
    assert "having none on the search split: float, chosen" in html


def test_samples_of_a_form_the_run_does_not_have_are_refused(run_result: RunResult) -> None:
    with pytest.raises(BadInputError, match=r"'local-litert/half'.*local-litert/plain_int8"):
        render_report(run_result, {"local-litert/half": [1]})
    with pytest.raises(BadInputError, match="are empty"):
        render_report(run_result, {"local-litert/float": []})


def test_written_file_is_what_was_rendered_and_says_why_when_it_cannot_be(
    run_result: RunResult, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    write_report(run_result, None, path)
    assert path.read_text(encoding="utf-8") == render_report(run_result)
    with pytest.raises(RunError, match="cannot write the report"):
        write_report(run_result, None, tmp_path / "missing" / "report.html")
