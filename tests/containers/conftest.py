"""What the tests of the images share: a builder, the agent's image, and compose.yaml."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from image_builder import BASE, ROOT, TOOLS, Builder, Container, debian_base


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    """With a base of Debian's Python in it, which the user's cache keeps for the next run."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"no image without {' and '.join(missing)} (Debian packages)")
    if os.geteuid() != 0:
        pytest.skip("images are built without an engine by root alone")
    builder = Builder(tmp_path_factory.mktemp("images"))
    empty = builder.call("from", "scratch")
    builder.call("add", "-q", empty, str(debian_base()), "/")
    builder.call("commit", "-q", "--rm", empty, BASE)
    yield builder
    builder.call("rm", "--all")
    builder.call("rmi", "--all", "--force")
    if os.path.ismount(builder.folder / "store/overlay"):
        subprocess.run(["umount", str(builder.folder / "store/overlay")], check=True)
    shutil.rmtree(builder.folder)


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    """compose.yaml, its anchors resolved."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return content


@pytest.fixture(scope="session")
def agent_image(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The agent's image of this checkout."""
    return builder.build("agent", tmp_path_factory.mktemp("agent"))


@pytest.fixture(scope="session")
def controller_image(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The controller's image of this checkout."""
    return builder.build("controller", tmp_path_factory.mktemp("controller"))


@pytest.fixture
def agent_container(builder: Builder, agent_image: str, tmp_path: Path) -> Iterator[Container]:
    """A container of the agent's image with an empty volume."""
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 10001, 10001)
    entrypoint = tuple(builder.config(agent_image)["Entrypoint"])
    container = Container(builder, builder.call("from", agent_image), home, entrypoint)
    yield container
    builder.call("rm", container.name)
