"""Runs of the command line, in a process of their own and with short measurements."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.zoo import build

HERE = Path(__file__).parent
QUICK_CLI = HERE / "quick_cli.py"
DIGITS = (1, 8, 8)

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this test session's caches, stores and Prefect database."""
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(scope="module", autouse=True)
def homes(home: Path) -> Iterator[None]:
    """Runs keep all they keep in `home` and use one thread; other rooms' tests see none of these settings."""
    folder = home
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGELOOP_CACHE", str(folder / "cache"))
        patch.setenv("PREFECT_HOME", str(folder / "prefect"))
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("COLUMNS", "200")
        for name in ("PREFECT_API_URL", "EDGELOOP_DATA", "EDGELOOP_STORE", "EDGELOOP_ARTIFACTS"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a file of fresh weights for a zoo network on digits, so that nothing is trained."""
    folder = tmp_path_factory.mktemp("weights")

    def make(name: str) -> Path:
        path = folder / f"{name}.safetensors"
        if not path.exists():
            torch.manual_seed(0)
            state = build(name, DIGITS, 10).state_dict()
            save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
        return path

    return make


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    """Starts `edgeloop` with the given arguments in a session of its own, as a terminal does."""

    def begin(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
        # Runs within this process have left their server's address; these are to start their own.
        environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        return subprocess.Popen(
            [sys.executable, str(QUICK_CLI), *map(str, arguments)],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment,
        )

    return begin


@pytest.fixture(scope="session")
def edgeloop(start: Callable[..., subprocess.Popen[str]]) -> Command:
    """Runs `edgeloop` to its end."""

    def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        process = start(*arguments, cwd=cwd)
        try:
            out, err = process.communicate(timeout=600)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run


@pytest.fixture(scope="session")
def only_run() -> Callable[[Path], Path]:
    """The one run's folder in a folder of runs."""

    def find(runs: Path) -> Path:
        (run,) = [path for path in runs.iterdir() if path.is_dir()]
        return run

    return find
