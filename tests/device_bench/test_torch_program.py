"""Exported programs: what is computed, what is refused, and that nothing of a file is executed."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from device_bench.protocol import FailureKind
from device_bench.runtimes import torch as runtime
from device_bench.runtimes import torch_program
from device_bench.runtimes.base import LoadOptions, RuntimeFailure, TimedModel

torch = pytest.importorskip("torch")

Change = Callable[[dict[str, Any]], None]


class Many(torch.nn.Module):
    """Two inputs, two outputs, several ways of calling an operator."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(6)
        self.register_buffer("shift", torch.arange(6.0), persistent=False)
        self.scale = torch.tensor([2.0])

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        left, right = torch.split(self.norm(x) + self.shift * self.scale, 3, dim=1)
        joined = torch.cat([left, right, y], dim=1).to(torch.float64)
        top, _ = joined.topk(2, dim=1)
        spread = torch.where(x > 0, x, float("-inf")).clamp(min=-1.0)
        return top.to(torch.float32), torch.einsum("ni,ni->n", spread, x) + x.new_ones(1).sum()


def save(folder: Path, module: torch.nn.Module, *inputs: torch.Tensor, open_batch: bool = False) -> Path:
    axes = tuple({0: torch.export.Dim("n", min=2)} for _ in inputs) if open_batch else None
    path = folder / "program.pt2"
    with quiet_export():
        torch.export.save(torch.export.export(module.eval(), inputs, dynamic_shapes=axes), path)
    return path


@contextmanager
def quiet_export() -> Iterator[None]:
    """torch 2.13 copies a class that it has deprecated itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
        yield


def load(path: Path) -> runtime.TorchModel:
    model = runtime.load(path, LoadOptions())
    assert isinstance(model, runtime.TorchModel)
    return model


@pytest.mark.parametrize("batch", [3, 7])
def test_it_computes_what_the_module_computes(tmp_path: Path, batch: int) -> None:
    module = Many()
    path = save(tmp_path, module, torch.randn(3, 6), torch.randn(3, 2), open_batch=True)
    model = load(path)
    assert [info.shape for info in model.inputs] == [(-1, 6), (-1, 2)]
    x, y = torch.randn(batch, 6), torch.randn(batch, 2)
    model.set_inputs([x.numpy(), y.numpy()])
    model.invoke()
    with torch.no_grad():
        expected = module(x, y)
    for found, wanted in zip(model.read_outputs(), expected, strict=True):
        assert np.array_equal(found, wanted.numpy())


def test_sizes_that_stay_open_are_computed(tmp_path: Path) -> None:
    class Folds(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(x.shape[0] * 2, 3).flip(0).reshape(x.shape[0], 6)

    module = Folds()
    model = load(save(tmp_path, module, torch.randn(3, 6), open_batch=True))
    x = torch.randn(5, 6)
    model.set_inputs([x.numpy()])
    model.invoke()
    assert np.array_equal(model.read_outputs()[0], module(x).numpy())


def test_what_no_later_step_reads_is_freed(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Sigmoid(), torch.nn.Tanh())
    steps = load(save(tmp_path, module, torch.randn(1, 4)))._program.steps
    assert [step.last_uses for step in steps] == [(), ("relu",), ("sigmoid",)]


def changed(path: Path, change: Change, part: str = "models/model.json") -> Path:
    """The archive with one JSON part changed."""
    target = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(part):
                document = json.loads(content)
                change(document)
                content = json.dumps(document).encode()
            new.writestr(name, content)
    return target


def refusal(path: Path) -> RuntimeFailure:
    with pytest.raises(RuntimeFailure) as caught:
        load(path)
    return caught.value


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return save(tmp_path, torch.nn.Linear(4, 2), torch.randn(1, 4))


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.hub.load",
        "torch.ops.load_library",
        "torch.ops.aten.save.default",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.linear.__class__",
        "torch.ops.aten.__class__.mro",
        "torch.ops.inductor._alloc_from_pool.default",
        "_operator.attrgetter",
        "math.sqrt",
        "#extension",
    ],
)
def test_only_operators_of_aten_are_called(linear: Path, target: str) -> None:
    def aim(document: dict[str, Any]) -> None:
        document["graph_module"]["graph"]["nodes"][0]["target"] = target

    found = refusal(changed(linear, aim))
    assert found.kind in (FailureKind.UNSUPPORTED, FailureKind.NOT_A_MODEL)
    assert target in str(found) or target.split(".")[-1] in str(found)


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._trace,))


def test_no_pickle_is_loaded(linear: Path, tmp_path: Path) -> None:
    trace = tmp_path / "executed"

    def pickle_it(document: dict[str, Any]) -> None:
        for payload in document["config"].values():
            payload["use_pickle"] = True

    armed = changed(linear, pickle_it, "model_weights_config.json")
    bombed = tmp_path / "bombed.pt2"
    with zipfile.ZipFile(armed) as old, zipfile.ZipFile(bombed, "w") as new:
        for name in old.namelist():
            loaded = "/weights/weight_" in name or name.endswith("sample_inputs/model.pt")
            new.writestr(name, pickle.dumps(Bomb(trace)) if loaded else old.read(name))
    found = refusal(bombed)
    assert found.kind is FailureKind.UNSUPPORTED and "no pickle is loaded" in str(found)
    assert not trace.exists()


def test_pickled_sample_inputs_are_never_read(linear: Path, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    bombed = tmp_path / "bombed.pt2"
    with zipfile.ZipFile(linear) as old, zipfile.ZipFile(bombed, "w") as new:
        for name in old.namelist():
            bomb = name.endswith("sample_inputs/model.pt")
            new.writestr(name, pickle.dumps(Bomb(trace)) if bomb else old.read(name))
    assert load(bombed).inputs[0].shape == (1, 4)
    assert not trace.exists()


def test_symbolic_sizes_are_not_evaluated(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    path = save(tmp_path, torch.nn.Linear(4, 2), torch.randn(3, 4), open_batch=True)

    def poison(document: dict[str, Any]) -> None:
        for meta in document["graph_module"]["graph"]["tensor_values"].values():
            for size in meta["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = f"__import__('pathlib').Path({str(trace)!r}).touch()"

    assert load(changed(path, poison)).inputs[0].shape == (-1, 4)
    assert not trace.exists()


def test_a_view_past_the_end_of_the_bytes(linear: Path) -> None:
    def stretch(document: dict[str, Any]) -> None:
        document["config"]["weight"]["tensor_meta"]["sizes"] = [{"as_int": 1 << 40}, {"as_int": 4}]

    found = refusal(changed(linear, stretch, "model_weights_config.json"))
    assert found.kind is FailureKind.NOT_A_MODEL and "out of bounds" in str(found)


def test_a_compressed_part_is_refused(linear: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.pt2"
    with zipfile.ZipFile(linear) as old, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "is compressed" in str(refusal(small))


def test_another_schema_is_refused(linear: Path) -> None:
    found = refusal(changed(linear, lambda document: document["schema_version"].update(major=9)))
    assert "export it again" in str(found)


def test_a_program_that_changes_its_own_buffers(tmp_path: Path) -> None:
    class Counts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count.add_(1)
            return x + self.count

    with quiet_export():
        exported = torch.export.export(Counts(), (torch.randn(2),)).run_decompositions({})
        torch.export.save(exported, tmp_path / "counts.pt2")
    assert "output of kind 'buffer_mutation'" in str(refusal(tmp_path / "counts.pt2"))


def test_the_literal_tables_are_torchs() -> None:
    from torch._export.serde import schema, serialize

    assert schema.SCHEMA_VERSION[0] == torch_program.SCHEMA_MAJOR
    tables = (
        (torch_program.DTYPES, serialize._SERIALIZE_TO_TORCH_DTYPE),
        (torch_program.MEMORY_FORMATS, serialize._SERIALIZE_TO_TORCH_MEMORY_FORMAT),
        (torch_program.LAYOUTS, serialize._SERIALIZE_TO_TORCH_LAYOUT),
    )
    for ours, theirs in tables:
        assert all(getattr(torch, name) == theirs[number] for number, name in ours.items())


class FakeCuda:
    """Events on a device whose time moves by 1, 2 and 4 ms between them."""

    STEPS = (0.0, 1.0, 3.0, 7.0)

    class Event:
        made = 0

        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing
            self.at = FakeCuda.STEPS[FakeCuda.Event.made % 4]
            FakeCuda.Event.made += 1

        def record(self) -> None:
            pass

        def synchronize(self) -> None:
            pass

        def elapsed_time(self, later: FakeCuda.Event) -> float:
            return later.at - self.at


class FakeTensor:
    """Goes to any device and stays where it is."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self.moves: list[str] = []

    def pin_memory(self) -> FakeTensor:
        return self

    def to(self, device: str, non_blocking: bool) -> FakeTensor:
        self.moves.append(device)
        return self

    def numpy(self) -> np.ndarray:
        return self.tensor.numpy()


def test_cuda_is_timed_by_its_events_copies_told_apart() -> None:
    tensor = FakeTensor(torch.ones(2))
    fake = SimpleNamespace(
        cuda=FakeCuda, inference_mode=torch.inference_mode, from_numpy=lambda array: tensor
    )
    program = torch_program.Program((), (), (), {}, ("x",), ("x",))
    model = runtime.CudaModel(fake, program)
    assert isinstance(model, TimedModel)
    assert not isinstance(runtime.TorchModel(fake, program), TimedModel)
    assert model.notes == ()
    model.set_inputs([np.ones(2, np.float32)])
    assert model.timed_invoke() == 7_000_000
    assert tensor.moves == ["cuda", "cpu"]
    assert model.read_outputs()[0].tolist() == [1, 1]
    (note,) = model.notes
    assert "to the device took 1 ms, the kernels 2 ms, and copying the outputs back 4 ms" in note


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_computes_what_the_cpu_computes(linear: Path) -> None:
    samples = np.random.default_rng(0).standard_normal((1, 4)).astype(np.float32)
    outputs = []
    for accelerator in runtime.accelerators():
        model = runtime.load(linear, LoadOptions(accelerator=accelerator))
        model.set_inputs([samples])
        model.invoke()
        outputs.append(model.read_outputs()[0])
    assert len(outputs) == 2 and np.abs(outputs[0] - outputs[1]).max() < 1e-5
