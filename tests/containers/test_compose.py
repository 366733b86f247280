"""compose.yaml says what it must, and what it names is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from image_builder import ROOT

OURS = {"server", "store", "agent-keys", "agent", "pairing", "worker", "deployments"}
LASTING = {"database", "server", "agent", "worker"}


def checked(file: Path) -> subprocess.CompletedProcess[str]:
    """A file against the schema of compose files."""
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"]
    return found


def test_it_follows_the_schema(compose: dict[str, Any], tmp_path: Path) -> None:
    done = checked(ROOT / "compose.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(yaml.safe_dump({**compose, "services": {"server": {"imagge": "edgeloop"}}}))
    assert checked(wrong).returncode == 1


def test_everything_is_there_and_lasts(services: dict[str, Any]) -> None:
    assert set(services) == OURS | {"database"}
    assert {name for name, service in services.items() if service["restart"] != "no"} == LASTING
    assert {name for name, service in services.items() if "healthcheck" in service} == LASTING


def test_one_waits_for_another_as_it_ends_or_answers(services: dict[str, Any]) -> None:
    """Nobody waits for the health of what ends, or for the end of what lasts; and not in a circle."""
    for service in services.values():
        for other, how in service.get("depends_on", {}).items():
            lasting = "service_healthy" if other in LASTING else "service_completed_successfully"
            assert how == {"condition": lasting}
    left = dict(services)
    while left:
        ready = [name for name, service in left.items() if not set(service.get("depends_on", {})) & set(left)]
        assert ready, f"these wait for one another: {sorted(left)}"
        for name in ready:
            del left[name]


def test_our_containers_can_do_little(services: dict[str, Any]) -> None:
    for name in OURS:
        service = services[name]
        assert service["read_only"] is True and service["tmpfs"] == ["/tmp"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service and "user" not in service


def test_nothing_is_published_but_pages_on_loopback(services: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports == {"server": ["127.0.0.1:${EDGELOOP_PORT:-4200}:4200"]}


def test_no_password_stands_in_the_file(services: dict[str, Any]) -> None:
    needed = re.compile(r"\$\{EDGELOOP_DATABASE_PASSWORD:\?[^}]+\}")
    assert needed.fullmatch(services["database"]["environment"]["POSTGRES_PASSWORD"])
    urls = [
        services["server"]["environment"]["PREFECT_SERVER_DATABASE_CONNECTION_URL"],
        services["worker"]["environment"]["EDGELOOP_STORE"],
    ]
    for url in urls:
        assert needed.fullmatch(url.partition("://edgeloop:")[2].rpartition("@")[0])


def test_databases_are_those_that_are_made(services: dict[str, Any]) -> None:
    """Prefect's own beside edgeloop's: both would write a table alembic_version."""
    made = set(re.findall(r"CREATE DATABASE (\w+);", (ROOT / "containers" / "databases.sql").read_text()))
    made.add(services["database"]["environment"]["POSTGRES_DB"])
    server = services["server"]["environment"]["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
    store = services["store"]["environment"]["EDGELOOP_STORE"]
    assert {url.rpartition("/")[2] for url in (server, store)} == made == {"prefect", "edgeloop"}


def test_what_is_mounted_exists(compose: dict[str, Any], services: dict[str, Any]) -> None:
    sources = [
        volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", [])
    ]
    assert sources
    for source in sources:
        assert (ROOT / source).is_file() if source.startswith("./") else source in compose["volumes"]


def test_every_image_is_of_a_target_or_of_one_version(services: dict[str, Any]) -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    for name, service in services.items():
        if name in OURS:
            assert service["build"]["target"] in targets and service["pull_policy"] == "build"
        else:
            assert re.search(r":\d+\.\d+", service["image"]), f"{name} may change by itself"


def test_the_base_is_of_one_version() -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert re.fullmatch(r"python:3\.1[12]\.\d+-slim-\w+", base)


def test_the_images_get_what_the_dockerfile_copies() -> None:
    """.dockerignore keeps everything out but what it names."""
    first, *allowed = (ROOT / ".dockerignore").read_text().split()
    assert first == "*"
    copies = re.findall(
        r"^COPY (?!--from)(?:--\S+ )?(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    sources = {name for line in copies for name in line.split()}
    assert "device_bench" in sources
    assert {f"!{name}" for name in sources} <= set(allowed)
