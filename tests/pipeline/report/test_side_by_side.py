"""Two runs on one page."""

from __future__ import annotations

import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from device_bench.errors import BadInputError
from pipeline.report import render_comparison, write_comparison
from pipeline.result import RunResult

TARGETS = ("local-onnxruntime", "local-litert")


class Page(HTMLParser):
    """The words of a page, its headings, and how often each tag is there."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture
def other(run_result: RunResult) -> RunResult:
    """The same task, where one target took another plan."""
    found = run_result.targets["local-litert"]
    chosen = found.chosen.model_copy(update={"accuracy": 91.0, "p50_ms": 0.2})
    plan = found.plan.model_copy(update={"removed": ()})
    changed = found.model_copy(update={"chosen": chosen, "plan": plan, "plan_id": plan.plan_id})
    targets = run_result.targets | {"local-litert": changed}
    return run_result.model_copy(update={"run_id": "20260106-another", "targets": targets})


def test_both_runs_every_target_and_what_differs_are_there(
    run_result: RunResult, other: RunResult, raw_samples: dict[str, list[int]]
) -> None:
    page = Page(render_comparison((run_result, other), (raw_samples, raw_samples)))
    text = " ".join(" ".join(page.words).split())
    assert run_result.run_id in text
    assert "20260106-another" in text
    assert "accuracy 90.41 91.00 +0.59" in text
    assert "Both chose the same plan." in text, "of the target that has the same one in both"
    assert "layer3.2 removed 100 %" in text
    # For each target and run a front and a plot of samples.
    assert page.tags.count("svg") == 4 * len(TARGETS)
    assert [f"{letter}: {name}" in text for letter in "AB" for name in TARGETS] == [True] * 4


def test_it_asks_for_nothing_and_is_small(
    run_result: RunResult, other: RunResult, raw_samples: dict[str, list[int]]
) -> None:
    text = render_comparison((run_result, other), (raw_samples, raw_samples))
    page = Page(text)
    assert page.addresses == ["#results"]
    assert "script" not in page.tags
    assert not re.search(r"url\(|@import", text)
    assert len(text) < 5_000_000
    assert text == render_comparison((run_result, other), (raw_samples, raw_samples))


def test_names_are_text_and_not_markup(run_result: RunResult, other: RunResult) -> None:
    named = other.model_copy(update={"run_id": "<script>alert(1)</script>", "model": "<b>"})
    page = Page(render_comparison((run_result, named), ({}, {})))
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in "".join(page.words)
    assert "different models or data" in " ".join(" ".join(page.words).split())


def test_targets_of_one_run_only_are_named(run_result: RunResult, other: RunResult) -> None:
    only = other.model_copy(update={"targets": {"local-litert": other.targets["local-litert"]}})
    text = " ".join(Page(render_comparison((run_result, only), ({}, {}))).words)
    assert "Only in A: local-onnxruntime." in text
    assert "Only in B" not in text


def test_samples_of_another_run_are_refused(run_result: RunResult, other: RunResult) -> None:
    with pytest.raises(BadInputError, match="samples are given for 'pi4/float'"):
        render_comparison((run_result, other), ({}, {"pi4/float": [1, 2]}))


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1280])
def test_it_fits_the_screen(
    width: int, run_result: RunResult, other: RunResult, raw_samples: dict[str, list[int]], tmp_path: Path
) -> None:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not on PATH")
    path = tmp_path / "both.html"
    write_comparison((run_result, other), (raw_samples, raw_samples), path)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    service = webdriver.ChromeService(executable_path=driver, log_output=os.devnull)
    browser = webdriver.Chrome(options=options, service=service)
    try:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(path.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") == width
        drawn = browser.execute_script(
            "return [...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().height)"
        )
    finally:
        browser.quit()
    assert len(drawn) == 8
    assert min(drawn) > 100
