"""A shelf in an object store: a local server that speaks S3, told of by the environment, as fsspec is."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.fleet.release import Release
from pipeline.fleet.shelf import Shelf

boto3 = pytest.importorskip("boto3", reason="no S3 libraries here (edgeloop[s3,dev])")
server = pytest.importorskip("moto.server", reason="no local S3 here (edgeloop[dev])")

KEYS = {"aws_access_key_id": "someone", "aws_secret_access_key": "sesame"}
CONTENT = b"an INT8 file" * 1000
# One process after another, as on several machines.
STEPS = """
import sys
from pathlib import Path
from pipeline.fleet.release import Release
from pipeline.fleet.shelf import Shelf
step, folder = sys.argv[1], Path(sys.argv[2])
shelf = Shelf(cache=folder / step)
if step == "put":
    release = Release.model_validate_json((folder / "release.json").read_text())
    shelf.put(release, folder / "model.int8.onnx")
for release in shelf.history():
    print(release.model_dump_json())
    print(shelf.fetch(release))
if step == "withdraw":
    print(shelf.withdraw("net"), shelf.history())
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of an S3 server with a bucket in it."""
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    address = f"http://{host}:{port}"
    client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **KEYS)
    client.create_bucket(Bucket="shelf")
    client.close()
    yield address
    running.stop()


def step(name: str, folder: Path, endpoint: str) -> list[str]:
    """What one process says."""
    given = {
        "EDGELOOP_ARTIFACTS": "s3://shelf/team/artifacts",
        "FSSPEC_S3_ENDPOINT_URL": endpoint,
        "FSSPEC_S3_KEY": KEYS["aws_access_key_id"],
        "FSSPEC_S3_SECRET": KEYS["aws_secret_access_key"],
    }
    done = subprocess.run(
        [sys.executable, "-c", STEPS, name, str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **given, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_processes_share_a_shelf_in_s3(endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "model.int8.onnx").write_bytes(CONTENT)
    release = Release(
        name="net",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        bytes=len(CONTENT),
        file_name="model.int8.onnx",
        run_id="run",
        plan_id="plan",
        target="local-onnxruntime",
        runtime="onnxruntime",
        metric="accuracy",
        score=90.0,
        p50_ms=1.0,
        created_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
    )
    (tmp_path / "release.json").write_text(release.model_dump_json())
    assert step("list", tmp_path, endpoint) == []
    for name in ("put", "put", "list"):
        said = step(name, tmp_path, endpoint)
        assert [Release.model_validate_json(line) for line in said[::2]] == [release], name
        assert Path(said[1]).read_bytes() == CONTENT, name
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **KEYS)
    there = [found["Key"] for found in client.list_objects_v2(Bucket="shelf")["Contents"]]
    client.close()
    assert there == [
        f"team/artifacts/objects/{release.sha256[:2]}/{release.sha256}",
        f"team/artifacts/releases/net/20260301T120000000000Z-{release.sha256[:12]}.json",
    ]
    assert step("withdraw", tmp_path, endpoint)[-1] == "1 ()"


def test_nothing_is_asked_of_the_place_before_it_is_used() -> None:
    assert Shelf("s3://shelf/team/artifacts").url == "s3://shelf/team/artifacts"
