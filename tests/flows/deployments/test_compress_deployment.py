"""A flow run of `compress` finds its folder by its own id, however often it is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_bench.errors import BadInputError
from flows.compression.job import CompressJob, stored_job
from flows.deployments.compress import compress, folder_of

FLOW_RUN = "c2ae875f-cb76-44d7-a4f4-3b97582e97e2"


@pytest.fixture
def job(tmp_path: Path) -> CompressJob:
    return CompressJob(model="mlp", targets=("local-onnxruntime",), out=str(tmp_path / "runs"))


def test_the_same_flow_run_finds_its_folder_again(job: CompressJob, tmp_path: Path) -> None:
    folder = folder_of(job, FLOW_RUN)
    assert folder.run_id.endswith("-mlp-digits-c2ae875fcb76")
    assert stored_job(folder.path) == job
    assert folder_of(job, FLOW_RUN).path == folder.path
    assert folder_of(job, FLOW_RUN.replace("c", "d")).path != folder.path
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_a_folder_that_a_kill_left_without_its_job_is_used(job: CompressJob, tmp_path: Path) -> None:
    folder = folder_of(job, FLOW_RUN)
    (folder.path / "job.json").unlink()
    assert folder_of(job, FLOW_RUN).path == folder.path
    assert stored_job(folder.path) == job


def test_a_job_file_is_read_when_the_run_is_new_and_not_again(
    job: CompressJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("job.toml")
    file.write_text('model = "mlp"\ntarget = "local-onnxruntime"\ntrials = 3\nmax_drop = 2.0\n')
    folder = folder_of(file, FLOW_RUN)
    found = stored_job(folder.path)
    assert (found.trials, found.budget.max_drop, found.targets) == (3, 2.0, ("local-onnxruntime",))
    assert found.out == str(tmp_path / "runs")
    file.write_text('model = "mlp"\ntrials = 5\n')
    assert stored_job(folder_of(file, FLOW_RUN).path).trials == 3


def test_data_sets_are_where_the_worker_has_them(
    job: CompressJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGELOOP_DATA", str(tmp_path))
    assert stored_job(folder_of(job, FLOW_RUN).path).data_root == str(tmp_path)
    elsewhere = job.model_copy(update={"data_root": "/elsewhere"})
    assert stored_job(folder_of(elsewhere, FLOW_RUN[::-1]).path).data_root == "/elsewhere"


def test_a_bare_device_stands_for_its_targets(job: CompressJob) -> None:
    folder = folder_of(job.model_copy(update={"targets": ("local",)}), FLOW_RUN)
    assert stored_job(folder.path).targets == ("local-onnxruntime", "local-litert")


def test_what_cannot_be_used_leaves_no_folder(job: CompressJob, tmp_path: Path) -> None:
    for bad in ({"model": "none"}, {"data": "none"}, {"targets": ("none",)}):
        with pytest.raises(BadInputError, match="unknown"):
            folder_of(job.model_copy(update=bad), FLOW_RUN)
    with pytest.raises(BadInputError, match=r"none.toml does not exist"):
        folder_of(tmp_path / "none.toml", FLOW_RUN)
    assert not (tmp_path / "runs").exists()


def test_the_flow_is_the_command_lines_own() -> None:
    from flows.compression.compress import compress_flow

    assert compress.name == compress_flow.name == "compress"
    assert compress.should_validate_parameters
