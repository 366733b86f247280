"""Execution providers that are not the CPU's, by a stand-in of the library that has some."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from device_bench.protocol import FailureKind
from device_bench.runtimes import onnxruntime
from device_bench.runtimes.base import LoadOptions, NoAccelerator, RuntimeFailure, count_delegated

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class Session:
    """Starts the providers of `started` among those asked for, and gives each its operators."""

    started = (CUDA, CPU)
    operators: dict[str, tuple[str, ...]]

    def __init__(self, path: str, options: Any, providers: list[str]) -> None:
        self.entries = options.entries
        self._providers = [name for name in providers if name in self.started]

    def get_providers(self) -> list[str]:
        return self._providers

    def get_outputs(self) -> list[Any]:
        return []

    def get_provider_graph_assignment_info(self) -> list[Any]:
        assert self.entries["session.record_ep_graph_assignment_info"] == "1"
        return [_part(name, kinds) for name, kinds in self.operators.items()]


def _part(name: str, kinds: tuple[str, ...]) -> Any:
    return SimpleNamespace(ep_name=name, get_nodes=lambda: [SimpleNamespace(op_type=kind) for kind in kinds])


class Options:
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("onnxruntime")
    found = ["TensorrtExecutionProvider", CUDA, "OpenVINOExecutionProvider", "AzureExecutionProvider", CPU]
    names = {
        "__version__": "1.31.1",
        "get_available_providers": lambda: found,
        "set_default_logger_severity": lambda level: None,
        "SessionOptions": Options,
        "ExecutionMode": SimpleNamespace(ORT_SEQUENTIAL=0),
        "GraphOptimizationLevel": SimpleNamespace(ORT_ENABLE_ALL=99),
        "InferenceSession": Session,
    }
    for name, value in names.items():
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    monkeypatch.setattr(Session, "operators", {CUDA: ("Conv", "Conv"), CPU: ()}, raising=False)
    return module


def load(accelerator: str) -> onnxruntime.OnnxModel:
    return onnxruntime.load(Path("any.onnx"), LoadOptions(accelerator=accelerator))


def test_every_provider_of_this_machine_by_its_short_name(library: ModuleType) -> None:
    assert onnxruntime.accelerators() == ("cpu", "tensorrt", "cuda", "openvino")


def test_all_on_the_accelerator(library: ModuleType) -> None:
    model = load("cuda")
    assert model.notes == ()
    assert [(p.where, p.operator, p.count) for p in model.placements] == [(CUDA, "Conv", 2)]
    assert count_delegated(model.placements) == (2, 0)


def test_operators_that_fell_back_are_named(library: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "operators", {CUDA: ("Conv", "Conv"), CPU: ("Pad", "Resize", "Pad")})
    model = load("cuda")
    assert model.notes == ("3 of 5 operators fell back from 'cuda' to the CPU: 2 Pad, 1 Resize",)
    assert count_delegated(model.placements) == (2, 3)


def test_all_on_the_cpu_is_a_failure(library: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "operators", {CPU: ("Conv",)})
    with pytest.raises(RuntimeFailure, match="took no operator") as caught:
        load("cuda")
    assert caught.value.kind is FailureKind.UNSUPPORTED
    assert load("cpu").notes == ()


def test_a_provider_that_does_not_start_is_a_failure(
    library: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "started", (CPU,))
    with pytest.raises(RuntimeFailure, match="CUDAExecutionProvider could not be started"):
        load("cuda")


def test_the_cloud_is_no_accelerator(library: ModuleType) -> None:
    with pytest.raises(NoAccelerator):
        load("azure")
