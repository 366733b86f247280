from __future__ import annotations

from pathlib import Path

import pytest
from bench_cases import request_for

from device_bench.errors import BadInputError
from device_bench.protocol import Failure, FailureKind
from device_bench.runtimes import MODULES
from device_bench.sweep import Sweep


def _process(sweep: Sweep, path: Path) -> object:
    return sweep._children[MODULES[request_for(path).runtime]][1]


def test_two_files_are_measured_in_one_process(onnx_file: Path) -> None:
    with Sweep() as sweep:
        first = sweep.p50_ms(request_for(onnx_file))
        process = _process(sweep, onnx_file)
        second = sweep.p50_ms(request_for(onnx_file))
        assert _process(sweep, onnx_file) is process
    assert isinstance(first, float) and isinstance(second, float)
    assert first > 0 and second > 0
    assert sweep._children == {}


def test_a_broken_file_is_a_failure_and_the_next_is_measured(onnx_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model at all")
    with Sweep() as sweep:
        found = sweep.p50_ms(request_for(broken))
        after = sweep.p50_ms(request_for(onnx_file))
    assert isinstance(found, Failure) and found.kind is FailureKind.NOT_A_MODEL
    assert isinstance(after, float)


def test_a_process_that_dies_is_replaced(faulty) -> None:
    with Sweep() as sweep:
        found = sweep.p50_ms(faulty("segfault"))
        assert sweep._children == {}
        after = sweep.p50_ms(faulty("fine"))
    assert isinstance(found, Failure) and found.kind is FailureKind.CRASHED
    assert isinstance(after, float)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with Sweep() as sweep, pytest.raises(BadInputError):
        sweep.p50_ms(request_for(tmp_path / "none.onnx"))
