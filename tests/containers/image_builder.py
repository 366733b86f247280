"""Buildah in the place of an engine, Debian's packages in the place of a registry."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BASE = "localhost/base:bookworm"
TOOLS = ("buildah", "mmdebstrap")
# Without an engine a container's processes are confined by chroot alone.
ISOLATED = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
_DEBIAN = "python3,python3-venv,python3-pip,ca-certificates"


@dataclass(frozen=True)
class Builder:
    """Buildah with a storage of its own; STORAGE_DRIVER=vfs where overlays cannot be mounted.

    Args:
        folder: of its images and containers.
    """

    folder: Path

    def words(self, *words: str) -> list[str]:
        """A command of buildah's."""
        driver = os.environ.get("STORAGE_DRIVER", "overlay")
        where = ["--root", str(self.folder / "store"), "--runroot", str(self.folder / "run")]
        return ["buildah", "--storage-driver", driver, *where, *words]

    def call(self, *words: str, timeout: float = 600) -> str:
        """Its standard output, once it has ended well."""
        done = subprocess.run(
            self.words(*words),
            capture_output=True,
            text=True,
            timeout=timeout,
            env=ISOLATED,
            cwd=ROOT,
        )
        assert done.returncode == 0, f"buildah {words[0]}: {(done.stdout + done.stderr)[-3000:]}"
        return done.stdout.strip()

    def build(self, target: str, folder: Path) -> str:
        """An image of this checkout's Dockerfile, from the base and wheels in `folder` alone; its name."""
        wheels = download_wheels(target, folder)
        options = ["--target", target, "--build-arg", f"BASE={BASE}", "--build-arg", "PIP_NO_INDEX=1"]
        name = f"localhost/{target}:test"
        self.call(
            "build", "-q", *options, "--build-context", f"wheels={wheels}", "-t", name, ".", timeout=1200
        )
        return name

    def config(self, image: str) -> dict[str, Any]:
        """What an image says of itself: user, command, environment."""
        config: dict[str, Any] = json.loads(self.call("inspect", "--type", "image", image))["OCIv1"]["config"]
        return config


@dataclass(frozen=True)
class Container:
    """A container with a folder of this machine over its home, as a volume would be.

    Args:
        builder: whose it is.
        name: buildah's for it.
        home: the folder, the container's user's own.
        entrypoint: the image's.
    """

    builder: Builder
    name: str
    home: Path
    entrypoint: tuple[str, ...]

    def words(self, *words: str) -> list[str]:
        """A command that runs `words` in it, as they are."""
        volume = f"{self.home}:/home/edgeloop"
        return self.builder.words("run", "-v", volume, self.name, "--", *words)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `words` in it to their end, whatever that is."""
        return subprocess.run(self.words(*words), capture_output=True, text=True, timeout=300, env=ISOLATED)


def debian_base() -> Path:
    """Debian with Python and pip in an archive."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeloop-containers"
    cache.mkdir(parents=True, exist_ok=True)
    base = cache / "bookworm.tar"
    if not base.exists():
        partial = cache / "bookworm.part.tar"
        options = ["--variant=minbase", f"--include={_DEBIAN}"]
        _do("mmdebstrap", *options, "bookworm", str(partial))
        partial.rename(base)
    return base


def download_wheels(target: str, folder: Path) -> Path:
    """All that a target of the Dockerfile needs from others, and to build our own code, in `folder`."""
    (stage,) = re.findall(
        rf"^FROM source AS {target}-needs\n(.+?)\n\n", _dockerfile(), re.MULTILINE | re.DOTALL
    )
    (project,) = re.findall(r'install -q "(\.\[[\w,]+\])"', stage)
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    wheels = folder / "wheels"
    pip = [sys.executable, "-m", "pip", "download", "-q", "-d", str(wheels), "-c", "constraints.txt"]
    _do(*pip, project, "setuptools", cwd=folder)
    return wheels


def _dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def _do(*words: str, cwd: Path | None = None) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=1200, cwd=cwd)
    assert done.returncode == 0, f"{words[0]}: {(done.stdout + done.stderr)[-3000:]}"
