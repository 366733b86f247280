"""From a `ModelSpec` to the original model: built from where it comes, with its weights in it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from device_bench.errors import MissingExtraError, unknown_name
from pipeline import zoo
from pipeline.callables import load_callable
from pipeline.errors import ModelError, WeightsError
from pipeline.model_source import FILES, is_keras, is_onnx
from pipeline.task import ModelSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

# How many keys of each kind an error names.
NAMED_KEYS = 5


def load_model(spec: ModelSpec) -> nn.Module:
    """The model that `spec` describes, in evaluation mode, in float32 on the CPU.

    Without `spec.weights` a zoo network has fresh weights, and an ONNX or Keras file its own.

    Raises:
        BadInputError: no zoo network of that name; names the nearest.
        ModelError: the model cannot be built or run, or gives another number of outputs.
        WeightsError: the weights do not fit; names the keys.
    """
    module = _build(spec)
    if spec.weights is not None:
        load_weights_(module, Path(spec.weights))
    module.eval()
    _check_outputs(module, spec)
    return module


def _build(spec: ModelSpec) -> nn.Module:
    if is_onnx(spec.source):
        from pipeline.onnx_import import import_onnx

        return import_onnx(Path(spec.source))
    if is_keras(spec.source):
        from pipeline.keras_import import import_keras

        return import_keras(Path(spec.source), spec.input_shape)
    if ":" in spec.source:
        return _build_own(spec)
    if spec.source not in zoo.MODELS:
        raise unknown_name("model", spec.source, [*zoo.MODELS, "module:callable", *FILES])
    return zoo.build(spec.source, spec.input_shape, spec.outputs)


def _build_own(spec: ModelSpec) -> nn.Module:
    try:
        from torch import nn
    except ImportError as error:
        raise MissingExtraError("torch", "pipeline") from error
    build = load_callable(spec.source, ModelError)
    needed = [
        parameter
        for parameter in inspect.signature(build).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
    ]
    if len(needed) not in (0, 2):
        raise ModelError(
            f"model callable {spec.source!r} needs {len(needed)} arguments; it must take "
            "(input_shape, outputs) or nothing"
        )
    try:
        module = build(spec.input_shape, spec.outputs) if needed else build()
    except Exception as error:
        raise ModelError(
            f"model callable {spec.source!r} failed: {type(error).__name__}: {error}{_line(error)}"
        ) from error
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"model callable {spec.source!r} gave {type(module).__name__}; it must give a torch.nn.Module"
        )
    return module


def load_weights_(module: nn.Module, path: Path) -> None:
    """Put the weights of a safetensors file into `module`, in place.

    Raises:
        WeightsError: the file is missing or damaged, or does not fit; names the keys.
    """
    given = _read_weights(path)
    wanted = module.state_dict()
    # A counter that only matters where the batch norm's momentum is None; many files leave it out.
    missing = [key for key in wanted if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in wanted]
    misshaped = [
        f"{key} (file {list(given[key].shape)}, model {list(wanted[key].shape)})"
        for key in wanted
        if key in given and given[key].shape != wanted[key].shape
    ]
    problems = [
        _named(kind, keys)
        for kind, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped))
        if keys
    ]
    if problems:
        raise WeightsError(
            f"weights {path} do not fit the model: {'; '.join(problems)}; give the weights of this very model"
        )
    module.load_state_dict(given, strict=False)


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingExtraError("safetensors", "pipeline") from error
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"weights {path} must be a .safetensors file (no pickle is ever loaded); save them by "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        )
    if not path.is_file():
        raise WeightsError(f"weights {path} do not exist; give the path of a .safetensors file")
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"weights {path} are damaged: {error}; fetch or save them again") from error
    return tensors


def _named(kind: str, keys: list[str]) -> str:
    more = f" and {len(keys) - NAMED_KEYS} more" if len(keys) > NAMED_KEYS else ""
    return f"{kind}: {', '.join(keys[:NAMED_KEYS])}{more}"


def _check_outputs(module: nn.Module, spec: ModelSpec) -> None:
    """One pass of two samples: a model for one sample only, or for other data, must not get further."""
    import torch

    try:
        with torch.no_grad():
            result = module(torch.zeros(2, *spec.input_shape))
    except Exception as error:
        raise ModelError(
            f"model {spec.source!r} does not run on two samples of shape {list(spec.input_shape)}: "
            f"{type(error).__name__}: {error}{_line(error)}; it must take one float32 tensor "
            f"[batch, {', '.join(map(str, spec.input_shape))}], for any batch size"
        ) from error
    shape = list(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
    if shape != [2, spec.outputs]:
        raise ModelError(
            f"model {spec.source!r} gives {shape} for two samples; the data needs [2, {spec.outputs}]: "
            "give a model and data that belong together"
        )


def _line(error: Exception) -> str:
    """Where in the user's own code `error` came from, as " (at file:line)"."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "site-packages" not in file and file != __file__ and not file.startswith("<"):
            place = f" (at {file}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place
