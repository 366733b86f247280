"""A real PostgreSQL for tests: its own data folder, reached by a socket in it, gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PROGRAMS = ("initdb", "pg_ctl", "createdb", "psql")


def programs() -> Path:
    """Where PostgreSQL's own programs are; skips the test where there are none."""
    # Debian keeps them off the path, a folder a version.
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]))
    found += [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    whole = [path for path in found if all((path / name).is_file() for name in PROGRAMS)]
    if not whole:
        pytest.skip("no PostgreSQL here (Debian's package postgresql)")
    return whole[0]


@dataclass
class PostgresServer:
    """One server. `folder`: of its data and its socket."""

    folder: Path
    programs: Path
    count: int = field(default=0)

    def url(self, database: str) -> str:
        """As a user would write it."""
        return f"postgresql://edgeloop@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """The URL of an empty one."""
        self.count += 1
        name = f"store_{self.count}"
        self.run("createdb", "--host", self.folder, "--username", "edgeloop", name)
        return self.url(name)

    def query(self, url: str, statement: str) -> str:
        """What psql says to a statement, bare."""
        name = url.partition("?")[0].rpartition("/")[2]
        words = ("--host", self.folder, "--username", "edgeloop", "--no-psqlrc", "-tA")
        return self.run("psql", *words, "--dbname", name, "-c", statement).strip()

    def start(self) -> None:
        """Let it run; it answers when this returns."""
        # No TCP: two test processes need no two ports.
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        words = ("-D", self.folder / "data", "-l", self.folder / "log", "-w", "-t", "120", "-o", options)
        self.run("pg_ctl", "start", *words)

    def stop(self, how: str) -> None:
        """End it: "fast" in order, "immediate" as after a loss of power."""
        self.run("pg_ctl", "stop", "-D", self.folder / "data", "-m", how, "-w")

    def run(self, program: str, *words: object) -> str:
        """One of PostgreSQL's programs, to its end; it refuses to work for root."""
        # To files: a server that pg_ctl leaves behind would hold a pipe open.
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(
                [str(self.programs / program), *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                timeout=300,
                check=False,
                cwd=self.folder,
                user=_owner(),
            )
            said.seek(0)
            text = said.read().decode()
        assert done.returncode == 0, f"{program}: {text}"
        return text


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A server with no databases of ours yet."""
    where = programs()
    # Not in pytest's folder, which only its owner may enter; and a socket's path has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="edgeloop-pg-"))
    server = PostgresServer(folder, where)
    owner = _owner()
    if owner is not None:
        os.chown(folder, owner, -1)
    folder.chmod(0o755)
    try:
        server.run(
            "initdb", "-D", folder / "data", "-U", "edgeloop", "--auth=trust", "-E", "UTF8", "--no-sync"
        )
        server.start()
        try:
            yield server
        finally:
            server.stop("fast")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _owner() -> int | None:
    """Whom the server runs as: anybody but root."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    return names.get("postgres", names["nobody"])
