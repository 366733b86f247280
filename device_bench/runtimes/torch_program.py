"""Reads and runs an exported program (.pt2) without `torch.export.load`, which executes what a file says.

Seen in torch 2.13: `torch.export.load` unpickles weights, constants and sample inputs with
`weights_only=False` where the file asks for it, evaluates its symbolic sizes as Python, walks from `torch` to
any attribute that a node names as its operator, and loads compiled libraries that lie in the archive. A file
from somebody else would run code of its own. So only three parts of the archive are read here, and
each holds plain data: the graph and the tables of tensors, which are JSON, and the tensors' raw bytes. The
graph is then interpreted, one ATen operator after the other, as the exported module itself would call
them. Whatever does not fit (a pickled tensor, a subgraph, an operator outside of ATen) is refused.

The archive's layout: `torch/export/pt2_archive/constants.py`; the JSON's: `torch/_export/serde/schema.py`.
"""

from __future__ import annotations

import json
import operator
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from device_bench.protocol import FailureKind, TensorInfo
from device_bench.runtimes.base import RuntimeFailure, first_lines, is_want_of_memory

# The major version of the JSON's schema that this module was written for (torch 2.8 to 2.13).
SCHEMA_MAJOR = 8

# schema.ScalarType, schema.MemoryFormat and schema.Layout, by the names that torch and numpy share.
DTYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    12: "bool",
    13: "bfloat16",
}
MEMORY_FORMATS = {1: "contiguous_format", 2: "channels_last", 3: "channels_last_3d", 4: "preserve_format"}
LAYOUTS = {7: "strided"}

# What a graph computes with sizes that stay open.
_OF_SIZES: dict[str, Callable[..., Any]] = {
    "_operator.add": operator.add,
    "_operator.sub": operator.sub,
    "_operator.mul": operator.mul,
    "_operator.floordiv": operator.floordiv,
    "_operator.getitem": operator.getitem,
}
# ATen operators that reach into the file system.
_FORBIDDEN = ("from_file", "save")

_TENSORS = (
    ("parameter", "parameter_name"),
    ("buffer", "buffer_name"),
    ("tensor_constant", "tensor_constant_name"),
)


class _Name(str):
    """A value that an earlier step computed, as opposed to a string constant."""


class Step(NamedTuple):
    """One operator call. Arguments are constants, `_Name`s, or lists of these."""

    operator: str
    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    outputs: tuple[str | tuple[str, ...] | None, ...]
    last_uses: tuple[str, ...]


class Program(NamedTuple):
    """An exported program on its device. `constants`: parameters and buffers by their names in the graph."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    steps: tuple[Step, ...]
    constants: Mapping[str, Any]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    def run(self, tensors: Sequence[Any]) -> list[Any]:
        """Outputs for inputs, both tensors on the program's device; what is no longer needed is freed."""
        values = dict(self.constants)
        values.update(zip(self.input_names, tensors, strict=True))
        for step in self.steps:
            arguments = [_value(argument, values) for argument in step.arguments]
            keywords = {name: _value(argument, values) for name, argument in step.keywords.items()}
            result = step.call(*arguments, **keywords)
            results = result if len(step.outputs) > 1 else (result,)
            # An assertion about a tensor has no output, and returns None all the same.
            for name, item in zip(step.outputs or (None,), results, strict=True):
                if isinstance(name, tuple):
                    values.update(zip(name, item, strict=True))
                elif name is not None:
                    values[name] = item
            for name in step.last_uses:
                del values[name]
        return [values[name] for name in self.output_names]


def _value(argument: Any, values: Mapping[str, Any]) -> Any:
    if type(argument) is _Name:
        return values[argument]
    if type(argument) is list:
        return [_value(item, values) for item in argument]
    return argument


def read_program(path: Path, torch: Any, device: str) -> Program:
    """Read a .pt2 file and put its tensors on a device.

    Args:
        torch: the library.
        device: "cpu" or "cuda"; devices that the graph names are replaced by it.

    Raises:
        RuntimeFailure: the file is no exported program, or holds what is refused here.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(archive, torch, device).program()
    except (
        zipfile.BadZipFile,
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
        NotImplementedError,
        RecursionError,
    ) as error:
        if is_want_of_memory(error):
            raise MemoryError(first_lines(error)) from error
        message = f"no exported program: {type(error).__name__}: {first_lines(error)}"
        raise RuntimeFailure(FailureKind.NOT_A_MODEL, message) from error


class _Reader:
    """One archive being read."""

    def __init__(self, archive: zipfile.ZipFile, torch: Any, device: str) -> None:
        self._archive = archive
        self._torch = torch
        self._device = device
        self._folder = archive.namelist()[0].partition("/")[0]

    def program(self) -> Program:
        document = json.loads(self._bytes("models/model.json"))
        if document["schema_version"]["major"] != SCHEMA_MAJOR:
            raise _refused(
                f"its schema is {document['schema_version']}, and {SCHEMA_MAJOR} is known; export it again "
                "with torch 2.13"
            )
        module = document["graph_module"]
        graph, signature = module["graph"], module["signature"]
        stored = {**self._table("constants"), **self._table("weights")}
        names, constants = [], {}
        for spec in signature["input_specs"]:
            ((kind, body),) = spec.items()
            if kind == "user_input":
                names.append(self._only_tensor(body["arg"]))
            elif kind in dict(_TENSORS):
                constants[str(body["arg"]["name"])] = stored[body[dict(_TENSORS)[kind]]]
            else:
                raise _refused(f"it has an input of kind {kind!r}; known: tensors, parameters and buffers")
        outputs = []
        for spec in signature["output_specs"]:
            ((kind, body),) = spec.items()
            if kind != "user_output":
                raise _refused(f"it has an output of kind {kind!r}; known: tensors that are returned")
            outputs.append(self._only_tensor(body["arg"]))
        infos = {name: _info(name, graph["tensor_values"][name]) for name in (*names, *outputs)}
        return Program(
            inputs=tuple(infos[name] for name in names),
            outputs=tuple(infos[name] for name in outputs),
            steps=_with_last_uses([self._step(node) for node in graph["nodes"]], keep=outputs),
            constants=constants,
            input_names=tuple(names),
            output_names=tuple(outputs),
        )

    def _bytes(self, name: str) -> bytes:
        entry = self._archive.getinfo(f"{self._folder}/{name}")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise _refused(f"{name} is compressed; torch.export.save stores its files as they are")
        return self._archive.read(entry)

    def _table(self, kind: str) -> dict[str, Any]:
        """The tensors that a payload config names: views of the raw bytes, on the device."""
        config = json.loads(self._bytes(f"data/{kind}/model_{kind}_config.json"))["config"]
        found = {}
        for name, payload in config.items():
            meta = payload["tensor_meta"]
            if payload["use_pickle"] or meta is None:
                raise _refused(f"tensor {name!r} is pickled, and no pickle is loaded here")
            size, stride = [_integer(n) for n in meta["sizes"]], [_integer(n) for n in meta["strides"]]
            dtype = getattr(self._torch, _named(DTYPES, meta["dtype"], "dtype"))
            raw = bytearray(self._bytes(f"data/{kind}/{payload['path_name']}"))
            flat = self._torch.frombuffer(raw, dtype=dtype) if raw else self._torch.empty(0, dtype=dtype)
            # Bounds are torch's to check: a view past the end of the bytes is an error.
            view = flat.as_strided(size, stride, _integer(meta["storage_offset"]))
            found[name] = view.to(self._device)
        return found

    def _only_tensor(self, argument: Mapping[str, Any]) -> str:
        ((kind, body),) = argument.items()
        if kind != "as_tensor":
            raise _refused(f"it takes or returns an argument of kind {kind!r}; known: tensors")
        return str(body["name"])

    def _step(self, node: Mapping[str, Any]) -> Step:
        arguments, keywords = [], {}
        for given in node["inputs"]:
            value = self._argument(given["arg"])
            if given["kind"] == 2:  # schema.ArgumentKind.KEYWORD
                keywords[str(given["name"])] = value
            else:
                arguments.append(value)
        target = str(node["target"])
        return Step(
            operator=target.removeprefix("torch.ops."),
            call=self._operator(target),
            arguments=tuple(arguments),
            keywords=keywords,
            outputs=tuple(_output(output) for output in node["outputs"]),
            last_uses=(),
        )

    def _operator(self, target: str) -> Callable[..., Any]:
        if target in _OF_SIZES:
            return _OF_SIZES[target]
        parts = target.split(".")
        if len(parts) != 5 or parts[:3] != ["torch", "ops", "aten"] or parts[3] in _FORBIDDEN:
            raise _refused(f"operator {target!r} is none of ATen's that compute")
        found = getattr(getattr(self._torch.ops.aten, parts[3]), parts[4])
        if not isinstance(found, self._torch._ops.OpOverload):
            raise _refused(f"operator {target!r} is none of ATen's that compute")
        return found  # type: ignore[no-any-return]

    def _argument(self, argument: Mapping[str, Any]) -> Any:
        ((kind, body),) = argument.items()
        match kind:
            case "as_none":
                return None
            case "as_int" | "as_float" | "as_bool" | "as_string":
                return _number(body) if kind == "as_float" else body
            case "as_ints" | "as_bools" | "as_int_lists":
                return body
            case "as_floats":
                return [_number(item) for item in body]
            case "as_tensor":
                return _Name(body["name"])
            case "as_tensors":
                return [_Name(item["name"]) for item in body]
            case "as_optional_tensors":
                return [self._argument(item) for item in body]
            case "as_sym_int":
                return _size(body)
            case "as_sym_ints":
                return [_size(item) for item in body]
            case "as_scalar_type":
                return getattr(self._torch, _named(DTYPES, body, "dtype"))
            case "as_memory_format":
                return getattr(self._torch, _named(MEMORY_FORMATS, body, "memory format"))
            case "as_layout":
                return getattr(self._torch, _named(LAYOUTS, body, "layout"))
            case "as_device":
                return self._torch.device(self._device)
        raise _refused(f"an operator has an argument of kind {kind!r}")


def _output(output: Mapping[str, Any]) -> str | tuple[str, ...] | None:
    ((kind, body),) = output.items()
    if kind == "as_tensors":
        return tuple(str(item["name"]) for item in body)
    if kind == "as_none":
        return None
    if kind == "as_sym_int":
        return str(body["as_name"])
    if kind == "as_tensor":
        return str(body["name"])
    raise _refused(f"an operator has an output of kind {kind!r}")


def _size(body: Mapping[str, Any]) -> int | _Name:
    ((kind, value),) = body.items()
    return _Name(value) if kind == "as_name" else int(value)


def _number(value: float | str) -> float:
    """JSON has no infinities; torch writes them as strings."""
    return float(value)


def _integer(size: Mapping[str, Any]) -> int:
    if "as_int" not in size:
        raise _refused("a stored tensor has an open size")
    return int(size["as_int"])


def _named(table: Mapping[int, str], number: int, kind: str) -> str:
    if number not in table:
        raise _refused(f"{kind} number {number} is not known; known: {', '.join(table.values())}")
    return table[number]


def _info(name: str, meta: Mapping[str, Any]) -> TensorInfo:
    dtype = _named(DTYPES, meta["dtype"], "dtype")
    if dtype == "bfloat16":
        raise _refused(f"tensor {name!r} is bfloat16, which numpy does not have; return it as float32")
    shape = tuple(int(size["as_int"]) if "as_int" in size else -1 for size in meta["sizes"])
    return TensorInfo(name=name, shape=shape, dtype=dtype)


def _with_last_uses(steps: Sequence[Step], keep: Sequence[str]) -> tuple[Step, ...]:
    """Let each step free what no later one reads, so that the peak memory is the graph's own."""
    made = {name for step in steps for output in step.outputs for name in _names(output)}
    seen = set(keep)
    done: list[Step] = []
    for step in reversed(steps):
        used = {name for part in (*step.arguments, *step.keywords.values()) for name in _read_names(part)}
        here = used | {name for output in step.outputs for name in _names(output)}
        done.append(step._replace(last_uses=tuple(sorted((here & made) - seen))))
        seen |= here
    return tuple(reversed(done))


def _names(output: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if output is None:
        return ()
    return output if isinstance(output, tuple) else (output,)


def _read_names(argument: Any) -> set[str]:
    if type(argument) is _Name:
        return {str(argument)}
    if type(argument) is list:
        return {name for item in argument for name in _read_names(item)}
    return set()


def _refused(why: str) -> RuntimeFailure:
    return RuntimeFailure(FailureKind.UNSUPPORTED, f"this exported program cannot be run here: {why}")
