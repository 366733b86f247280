"""An ONNX file that someone else made, as a torch module that prunes, trains and exports like any other."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_bench.errors import MissingExtraError
from pipeline.errors import ModelError
from pipeline.onnx_opset import OPSET, at_opset_17, register_aside

if TYPE_CHECKING:
    import onnx
    from torch import fx, nn

RENEW = "export it again, for example by torch.onnx.export(model, inputs, path, dynamo=True)"

# What `torch.library` declares lives as long as the object that declared it.
_declared: list[Any] = []


def import_onnx(path: Path) -> nn.Module:
    """The model in an ONNX file as a torch module in evaluation mode.

    Raises:
        ModelError: the file is missing, truncated, lacks its external data, has several inputs or outputs,
            or uses an operator that cannot be imported (named).
    """
    shape = onnx_input_shape(path)
    model = _at_opset(path, _read(path))
    _import_torchvision()
    try:
        from onnx2torch import convert

        register_aside()
        module: fx.GraphModule = convert(model).eval()
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "onnx2torch", "pipeline") from error
    except NotImplementedError as error:
        raise ModelError(
            f"{path} cannot be imported: {_operator(error)}; {_operators(model)}; replace the operator and "
            "export the model again"
        ) from error
    except Exception as error:
        raise ModelError(
            f"{path} cannot be imported: {type(error).__name__}: {error}; {_operators(model)}"
        ) from error
    _own_memory_(module)
    return _rewritten(path, module, shape, _inputs(model)[0].type.tensor_type.shape.dim[0].dim_value or None)


def _rewritten(path: Path, module: fx.GraphModule, shape: tuple[int, ...], batch: int | None) -> nn.Module:
    """`module` in modules that prune and trace, proven to compute the same for samples one by one."""
    import torch

    from pipeline.onnx_modules import Rewriter

    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(2 * (batch or 1), *shape, generator=generator)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # onnx2torch's own Slice indexes by a list; the rewriting leaves none behind.
            warnings.filterwarnings("ignore", message="Using a non-tuple sequence")
            wanted = torch.cat([module(part) for part in samples.split(batch or 1)])
            Rewriter(module, shape, batch).rewrite_()
            given = module(samples)
    except Exception as error:
        raise ModelError(
            f"{path} does not run on samples of shape {list(shape)}: {type(error).__name__}: {error}; "
            f"it must take any batch size: {RENEW} with a dynamic first dimension"
        ) from error
    if given.shape != wanted.shape or not torch.allclose(given, wanted, rtol=1e-3, atol=1e-4):
        raise ModelError(
            f"{path} mixes the samples of a batch or fixes its size; {RENEW} with a dynamic first dimension"
        )
    return module


def onnx_input_shape(path: Path) -> tuple[int, ...]:
    """Shape of one sample that the file's model takes, without the batch dimension.

    Raises:
        ModelError: the file cannot be read, or a size other than the batch is not fixed.
    """
    model = _read(path)
    taken = _inputs(model)[0]
    sizes = tuple(dim.dim_value for dim in taken.type.tensor_type.shape.dim)
    if len(sizes) < 2 or any(size < 1 for size in sizes[1:]):
        raise ModelError(
            f"{path} takes {taken.name!r} of shape {_shape_text(taken)}; every size but the first, the "
            f"batch, must be fixed: {RENEW}"
        )
    return sizes[1:]


def _read(path: Path) -> onnx.ModelProto:
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "pipeline") from error
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not path.is_file():
        raise ModelError(f"ONNX file {path} does not exist; give the path of an existing file")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise ModelError(f"{path} is truncated or no ONNX file ({error}); fetch it or {RENEW}") from error
    if not model.graph.node or not model.opset_import:
        raise ModelError(f"{path} is truncated or no ONNX file (it holds no operator); fetch it or {RENEW}")
    if len(_inputs(model)) != 1 or len(model.graph.output) != 1:
        raise ModelError(
            f"{path} has {len(_inputs(model))} inputs and {len(model.graph.output)} outputs; a model must "
            "have one of each"
        )
    return model


def _at_opset(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with its external data, checked and brought to `OPSET`."""
    from onnx import checker, external_data_helper

    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, checker.ValidationError) as error:
        raise ModelError(
            f"{path} keeps weights in other files that cannot be read ({error}); put them beside it"
        ) from error
    try:
        checker.check_model(model)
    except checker.ValidationError as error:
        raise ModelError(f"{path} is damaged or no valid ONNX ({error}); fetch it or {RENEW}") from error
    try:
        return at_opset_17(model)
    except Exception as error:  # the converter is C++; its errors share no base but Exception
        raise ModelError(
            f"{path} cannot be brought to opset {OPSET} ({error}); {_operators(model)}; "
            f"export it for opset {OPSET}"
        ) from error


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """What the model takes from outside: old files list their weights among the inputs."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _shape_text(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    return f"[{', '.join(dim.dim_param or str(dim.dim_value or '?') for dim in dims)}]"


def _operators(model: onnx.ModelProto) -> str:
    names = sorted({f"{node.domain}.{node.op_type}".lstrip(".") for node in model.graph.node})
    return f"its operators: {', '.join(names)}"


def _operator(error: Exception) -> str:
    """Which operator onnx2torch has no converter for, in words."""
    found = re.search(r"domain='([^']*)', operation_type='([^']*)', version=(\d+)", str(error))
    if found is None:
        return str(error)
    domain, operator, version = found.groups()
    return f"operator {f'{domain}.' if domain else ''}{operator} (version {version}) is not supported"


def _own_memory_(module: nn.Module) -> None:
    """Give every weight memory of its own: read-only or shared memory can neither be trained nor stored."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone()


def _import_torchvision() -> None:
    """Import torchvision, which onnx2torch does for two detection operators, beside any build of torch.

    torchvision's C++ operators do not load beside a CPU build of torch; its Python part then stops at the
    first operator that it wants to describe. Declared without an implementation, both let it pass; nothing
    here ever calls them. They are declared only then: beside an extension that loads they would clash.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "pipeline") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torchvision  # type: ignore[import-untyped]
        except ModuleNotFoundError as error:
            raise MissingExtraError("torchvision", "pipeline") from error
        except RuntimeError as error:
            logging.getLogger(__name__).debug("torchvision's operators are declared by hand: %s", error)
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _declared.append(library)
            import torchvision  # noqa: F401
