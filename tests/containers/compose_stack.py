"""Brings compose.yaml up without an engine: in buildah's containers on this machine's network.

What an engine would do is done as plainly as possible: services start in their order, wait for one another as
the file says, and share folders for volumes. Names of services become addresses of loopback; Debian's
PostgreSQL stands in for the database.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from image_builder import ISOLATED, ROOT, Builder

_WAIT_SECONDS = 180.0
_PASSWORD = "5f0c"
_VARIABLE = re.compile(r"\$\{(\w+):([-?])([^}]*)\}")


@dataclass
class Stack:
    """compose.yaml's services at work.

    Args:
        builder: has their images.
        services: of the file.
        images: by the file's name for each, the builder's.
        folder: for volumes and logs.
        ports: of loopback, for database, server and agent.
    """

    builder: Builder
    services: Mapping[str, Any]
    images: Mapping[str, str]
    folder: Path
    ports: Mapping[str, int]
    containers: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def up(self, without: set[str]) -> None:
        """Start all services but these in the order that they ask for; returns when the last is ready."""
        left = {name: service for name, service in self.services.items() if name not in without}
        while left:
            name = next(name for name, one in left.items() if not set(one.get("depends_on", {})) & set(left))
            self.start(name)
            del left[name]

    def start(self, name: str) -> None:
        """Run one to its end, or until it is healthy if it lasts."""
        service = self.services[name]
        image = self.images[service["image"]]
        self.containers.setdefault(name, self.builder.call("from", image))
        entrypoint = service.get("entrypoint") or self.builder.config(image)["Entrypoint"]
        command = [*entrypoint, *service["command"], *self._added(name)]
        if "healthcheck" not in service:
            done = self.run(name, *command)
            assert done.returncode == 0, f"{name}: {(done.stdout + done.stderr)[-3000:]}"
            return
        with self.log(name).open("ab") as log:
            words = self._words(name, command)
            self.processes[name] = subprocess.Popen(words, stdout=log, stderr=log, env=ISOLATED)
        deadline = time.monotonic() + _WAIT_SECONDS
        while self.run(name, *service["healthcheck"]["test"][1:]).returncode != 0:
            said = self.log(name).read_text()[-3000:]
            assert self.processes[name].poll() is None and time.monotonic() < deadline, f"{name}: {said}"
            time.sleep(0.5)

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a service's container to its end, whatever that is."""
        words = self._words(name, list(command))
        return subprocess.run(words, capture_output=True, text=True, timeout=900, env=ISOLATED)

    def stop(self, name: str) -> int:
        """End a lasting service as an engine does, by SIGTERM to its first process; its exit code."""
        process = self.processes.pop(name)
        with contextlib.suppress(psutil.NoSuchProcess):
            inside = [
                child
                for child in psutil.Process(process.pid).children(recursive=True)
                if Path(child.exe()).name.startswith("python")
            ]
            inside[0].terminate()
        return process.wait(timeout=60)

    def down(self) -> None:
        """End what lasts, the last one first."""
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                for child in reversed(psutil.Process(process.pid).children(recursive=True)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.kill()
                process.kill()
                process.wait()
        self.processes.clear()

    def log(self, name: str) -> Path:
        """What a lasting service says."""
        return self.folder / f"{name}.log"

    def _added(self, name: str) -> list[str]:
        """Where a service listens here: on loopback, and on a free port."""
        if name == "agent":
            return ["--host", "127.0.0.1", "--port", str(self.ports[name])]
        return ["--port", str(self.ports[name])] if name == "server" else []

    def _words(self, name: str, command: list[str]) -> list[str]:
        service = self.services[name]
        options = [
            word for volume in service.get("volumes", []) for word in ("-v", self._volume(name, volume))
        ]
        for key, value in service.get("environment", {}).items():
            options += ["--env", f"{key}={self._here(value)}"]
        words = [self._here(word) for word in command]
        return self.builder.words("run", *options, self.containers[name], "--", *words)

    def _here(self, text: str) -> str:
        """A value of the file with its variables given, and with addresses of this machine."""
        given = {"EDGELOOP_DATABASE_PASSWORD": _PASSWORD, "EDGELOOP_PORT": str(self.ports["server"])}
        text = _VARIABLE.sub(lambda found: given.get(found[1], found[3]), text)
        text = text.replace("@database/", f"@127.0.0.1:{self.ports['database']}/")
        text = text.replace("0.0.0.0", "127.0.0.1")
        for name, port in (("server", 4200), ("agent", 8443)):
            text = re.sub(rf"//({name}|127\.0\.0\.1):{port}\b", f"//127.0.0.1:{self.ports[name]}", text)
        return text

    def _volume(self, name: str, volume: str) -> str:
        """A volume of the file as a folder; as with an engine, a new one starts with what the image has."""
        source, target, *rest = volume.split(":")
        if source.startswith("./"):
            return ":".join([str(ROOT / source), target, *rest])
        folder = self.folder / "volumes" / source
        if not folder.exists():
            folder.parent.mkdir(exist_ok=True)
            mounted = Path(self.builder.call("mount", self.containers[name]))
            subprocess.run(["cp", "-a", str(mounted) + target, str(folder)], check=True)
            self.builder.call("umount", self.containers[name])
        return ":".join([str(folder), target, *rest])


@contextlib.contextmanager
def postgresql(port: int) -> Iterator[None]:
    """Debian's PostgreSQL with the databases that compose.yaml's has, as the user that the package made."""
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"))
    # Not below pytest's folder, which is root's alone.
    folder = Path(tempfile.mkdtemp(prefix="edgeloop-database-"))
    shutil.chown(folder, "postgres", "postgres")
    secret = folder / "password"
    secret.write_text(_PASSWORD)
    shutil.chown(secret, "postgres")

    def call(*words: str) -> None:
        subprocess.run(words, user="postgres", check=True, capture_output=True, timeout=120, cwd=folder)

    data, socket_folder = str(folder / "data"), f"-c unix_socket_directories={folder}"
    words = ["-D", data, "-U", "edgeloop", f"--pwfile={secret}", "-A", "scram-sha-256", "--no-sync"]
    call(str(binaries / "initdb"), *words)
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c fsync=off {socket_folder}"
    log = str(folder / "postgresql.log")
    call(str(binaries / "pg_ctl"), "-D", data, "-w", "-l", log, "-o", options, "start")
    try:
        psql = ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(port), "-U", "edgeloop"]
        environment = {**os.environ, "PGPASSWORD": _PASSWORD}
        made = [["-c", "CREATE DATABASE edgeloop"], ["-f", str(ROOT / "containers" / "databases.sql")]]
        for what in made:
            subprocess.run([*psql, "-d", "postgres", *what], check=True, env=environment, timeout=60)
        yield
    finally:
        call(str(binaries / "pg_ctl"), "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


def free_port() -> int:
    """One that nothing of this machine listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
