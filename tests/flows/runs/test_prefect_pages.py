"""What a person sees in Prefect's own pages: the picture is drawn, trials are listed, the bar has moved."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.browser

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

PATIENCE_SECONDS = 120.0
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--window-size=1280,1800",
)
# A flow that only tells; in a process of its own, since Prefect keeps its settings for a process.
TELL = """
import sys
from pathlib import Path
from prefect import flow
from flows.compression.job import stored_job
from flows.compression.publication import published
from pipeline.progress import reporter
from pipeline.result import RunResult

@flow(name="told")
def told(folder: str) -> None:
    run = Path(folder)
    with published(stored_job(run), run) as publication:
        reporter().stage("trials", 5)
        publication.conclude(RunResult.model_validate_json((run / "result.json").read_text()), run)

told(sys.argv[1])
"""


@pytest.fixture
def prefect(tmp_path: Path) -> Iterator[str]:
    """The address of a server with pages."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        environment = os.environ | {
            "PREFECT_HOME": str(tmp_path / "prefect"),
            # The pages ask whom this names.
            "PREFECT_API_URL": f"{address}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
        command = [sys.executable, "-m", "flows.server", str(listener.fileno()), "standing"]
        process = subprocess.Popen(
            command, env=environment, pass_fds=[listener.fileno()], stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        until(lambda: answers(address), "the server answers")
        yield address
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(30)
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[object]:
    """Chromium with a profile of its own."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not on PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    service = webdriver.ChromeService(executable_path=driver, log_output=os.devnull)
    session = webdriver.Chrome(options=options, service=service)
    yield session
    session.quit()


def answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/api/health", timeout=5.0, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def until(holds: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(0.1)


def test_prefects_pages_show_the_run(browser, prefect: str, finished: Callable[..., Path]) -> None:  # type: ignore[no-untyped-def]
    run = finished()
    environment = os.environ | {
        "PREFECT_API_URL": f"{prefect}/api",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", TELL, str(run)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = httpx.post(f"{prefect}/api/artifacts/filter", json={}, trust_env=False, timeout=30).json()
    pages = {one["type"]: f"{prefect}/artifacts/artifact/{one['id']}" for one in found}
    assert set(pages) == {"progress", "table", "markdown"}

    def text() -> str:
        return str(browser.find_element("tag name", "body").text)

    def pictures() -> list[int]:
        """Widths in pixels of the pictures that were really drawn, by what they are called."""
        script = (
            "return [...document.images].filter(i => i.alt.startsWith('Pareto')).map(i => i.naturalWidth)"
        )
        return list(browser.execute_script(script))

    browser.get(pages["markdown"])
    until(lambda: pictures() == [560], "the picture is drawn")
    assert "resnet20 on digits" in text()
    assert "2.00× (1.96–2.04)" in text()
    browser.get(pages["table"])
    until(lambda: "88.00" in text(), "the trials are listed")
    assert "2 Items" in text()
    browser.get(pages["progress"])
    until(lambda: "100%" in text(), "the bar has moved")
    assert "finished: budget met" in text()
    table = next(one for one in found if one["type"] == "table")
    assert [row["trial"] for row in json.loads(table["data"])] == ["1", "2"]
