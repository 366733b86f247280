"""The page as a person meets it: opened offline from a file in headless Chromium."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.report import write_report
from pipeline.result import RunResult

pytestmark = pytest.mark.browser

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1800",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """Chromium with a profile of its own."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not on PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver, log_output=os.devnull)
    session = webdriver.Chrome(options=options, service=service)
    yield session
    session.quit()


@pytest.fixture
def page(browser, run_result: RunResult, raw_samples: dict[str, list[int]], tmp_path: Path):  # type: ignore[no-untyped-def]
    """The report, opened."""
    path = tmp_path / "report.html"
    write_report(run_result, raw_samples, path)
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(path.as_uri())
    return browser


def test_plot_has_a_mark_for_every_measured_trial_and_the_tables_their_rows(
    page, run_result: RunResult
) -> None:  # type: ignore[no-untyped-def]
    for target in run_result.targets:
        marks = page.find_elements("css selector", f'svg[data-target="{target}"] [data-trial]')
        measured = [point for point in run_result.points if target in point.latency_ms]
        assert len(marks) == len(measured)
        assert all(mark.size["width"] > 0 for mark in marks)
        assert len(page.find_elements("css selector", f'svg[data-target="{target}"] .reference')) == 3
    assert len(page.find_elements("css selector", "#measurements tbody tr")) == 6
    assert len(page.find_elements("css selector", "#conditions tbody tr")) == 6
    assert len(page.find_elements("css selector", "#units tbody tr")) == len(run_result.units)
    assert len(page.find_elements("css selector", "#trials tbody tr")) == len(run_result.points)


def test_nothing_but_the_file_is_asked_for_and_the_console_is_silent(page) -> None:  # type: ignore[no-untyped-def]
    messages = [json.loads(line["message"])["message"] for line in page.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert asked == {page.current_url}
    assert page.get_log("browser") == []


def test_keyboard_walks_the_marks_and_the_tip_tells_their_figures(page) -> None:  # type: ignore[no-untyped-def]
    marks = page.find_elements("css selector", ".pareto .trials")[0].find_elements(
        "css selector", "[data-trial]"
    )
    page.execute_script("arguments[0].focus()", marks[0])
    tip = page.find_element("id", "tip")
    assert tip.text == marks[0].get_attribute("aria-label")
    page.switch_to.active_element.send_keys("\ue014")  # the right arrow key
    assert page.switch_to.active_element == marks[1]
    assert tip.text == marks[1].get_attribute("aria-label")
    twins = page.find_elements("css selector", ".twin")
    assert [twin.get_attribute("data-trial") for twin in twins] == [marks[1].get_attribute("data-trial")]


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_page_never_scrolls_sideways(page, width: int) -> None:  # type: ignore[no-untyped-def]
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_dark_scheme_changes_paper_and_ink(page) -> None:  # type: ignore[no-untyped-def]
    def colours() -> list[str]:
        script = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
        return list(page.execute_script(script))

    seen = []
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        seen.append(colours())
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] != seen[1][1]


def test_the_reader_chooses_the_colours(page) -> None:  # type: ignore[no-untyped-def]
    feature = {"name": "prefers-color-scheme", "value": "light"}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    button = page.find_element("id", "scheme")
    seen = []
    for _ in range(4):
        paper = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        seen.append((button.text, paper))
        # By the keyboard, as by the mouse.
        button.send_keys("\ue007")
    system, light, dark, again = seen
    assert [text for text, _ in seen] == [
        "colours: as the system",
        "colours: light",
        "colours: dark",
        "colours: as the system",
    ]
    assert system == again
    assert light[1] == system[1] != dark[1]
