"""What onnx2torch makes, in modules that prune, train and export.

Its Reshape, Pad and Slice read their sizes from tensors, which no tracer can follow, and a product with a
fixed matrix is no layer to it. Here sizes become plain numbers and such products become `nn.Linear`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from pipeline.onnx_absorption import Absorber
from pipeline.zoo.resnet import OptionAShortcut

Sizes = tuple[int, ...]


class StaticReshape(nn.Module):
    """Reshape to fixed sizes; the one that follows the batch is -1."""

    def __init__(self, shape: Sizes) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, ...] → `shape`."""
        return x.reshape(self.shape)


class StaticPad(nn.Module):
    """Pad by fixed amounts, given as torch gives them: last dimension first."""

    def __init__(self, pads: Sizes, mode: str, value: float) -> None:
        super().__init__()
        self.pads = pads
        self.mode = mode
        self.value = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[...] → the same, larger."""
        value = self.value if self.mode == "constant" else None
        return functional.pad(x, self.pads, self.mode, value)


class StaticSlice(nn.Module):
    """Fixed ranges of some dimensions."""

    def __init__(self, ranges: dict[int, slice]) -> None:
        super().__init__()
        self.ranges = ranges

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[...] → the same, smaller."""
        return x[tuple(self.ranges.get(dim, slice(None)) for dim in range(x.ndim))]


class StaticSqueeze(nn.Module):
    """Drop fixed dimensions, of size one."""

    def __init__(self, dims: Sizes) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[...] → the same, of fewer dimensions."""
        return x.squeeze(self.dims)


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps every node's value."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """The node's value, kept."""
        self.values[n] = super().run_node(n)
        return self.values[n]


class Rewriter:
    """Rewrites one imported module in place.

    Args:
        module: what onnx2torch made.
        sample_shape: shape of one sample, without the batch dimension.
        fixed_batch: the batch size that the file was made for; None if it takes any.
    """

    def __init__(self, module: fx.GraphModule, sample_shape: Sizes, fixed_batch: int | None) -> None:
        self._module = module
        batch = fixed_batch or 2
        self._first = self._run(batch, sample_shape)
        # A file for one batch size runs at no other; its first dimensions are then taken for the batch, which
        # the caller proves or refutes by running the result.
        self._second = None if fixed_batch else self._run(batch + 1, sample_shape)

    def rewrite_(self) -> None:
        """Replace what can be replaced; the module computes the same afterwards."""
        for node in list(self._module.graph.nodes):
            if node.op != "call_module":
                continue
            kind = type(self._module.get_submodule(str(node.target))).__name__
            match kind:
                case "OnnxReshape":
                    self._replace_(node, self._reshape(node), 1)
                case "OnnxPadDynamic":
                    self._replace_(node, self._pad(node), 1)
                case "OnnxSlice":
                    self._replace_(node, self._slice(node), 1)
                case "OnnxSqueezeDynamicAxes":
                    self._replace_(node, self._squeeze(node), 1)
                case "OnnxMatMul":
                    self._replace_(node, self._linear(node), 1)
        Absorber(self._module, self._first).absorb_()
        for node in list(self._module.graph.nodes):
            self._join_shortcut_(node)
        self._clean_()

    def _run(self, batch: int, sample_shape: Sizes) -> dict[fx.Node, Any]:
        recorder = _Recorder(self._module)
        with torch.no_grad():
            recorder.run(torch.zeros(batch, *sample_shape))
        return recorder.values

    def _numbers(self, node: Any) -> list[Any] | None:
        """What an argument holds, if it is the same for every batch."""
        if not isinstance(node, fx.Node):
            return None
        first = self._first[node]
        if self._second is not None and not torch.equal(first, self._second[node]):
            return None
        numbers: list[Any] = first.reshape(-1).tolist()
        return numbers

    def _reshape(self, node: fx.Node) -> nn.Module | None:
        first = tuple(self._first[node].shape)
        more = self._second
        second = (first[0] + 1, *first[1:]) if more is None else tuple(more[node].shape)
        varying = [dim for dim, (one, other) in enumerate(zip(first, second, strict=True)) if one != other]
        if len(varying) > 1:
            return None
        given = self._first[node.args[0]]
        if len(first) == 2 and varying == [0] and first[0] == len(given):
            # Written without a width, so that it still fits once channels before it are gone.
            return nn.Flatten()
        return StaticReshape(tuple(-1 if dim in varying else size for dim, size in enumerate(first)))

    def _squeeze(self, node: fx.Node) -> nn.Module | None:
        if len(self._first[node].shape) == 2:
            return self._reshape(node)
        dims = self._numbers(node.args[1]) if len(node.args) > 1 else None
        return None if dims is None else StaticSqueeze(tuple(int(dim) for dim in dims))

    def _pad(self, node: fx.Node) -> nn.Module | None:
        pads = self._numbers(node.args[1])
        value = self._numbers(node.args[2]) if len(node.args) > 2 else [0.0]
        if pads is None or value is None:
            return None
        dims = len(pads) // 2
        pairs = [(pads[dim], pads[dims + dim]) for dim in reversed(range(dims))]
        while pairs and pairs[-1] == (0, 0):
            pairs.pop()
        mode = str(self._module.get_submodule(str(node.target)).mode)
        return StaticPad(tuple(int(amount) for pair in pairs for amount in pair), mode, float(value[0]))

    def _slice(self, node: fx.Node) -> nn.Module | None:
        arguments = [*node.args[1:], *(node.kwargs[key] for key in ("axes", "steps") if key in node.kwargs)]
        numbers = [self._numbers(argument) for argument in arguments]
        if any(entry is None for entry in numbers):
            return None
        starts, ends = numbers[0] or [], numbers[1] or []
        dims = self._first[node].ndim
        named = "axes" in node.kwargs or len(node.args) > 3
        axes = [axis % dims for axis in numbers[2] or []] if named else list(range(len(starts)))
        stepped = "steps" in node.kwargs or len(node.args) > 4
        steps = (numbers[-1] or []) if stepped else [1] * len(starts)
        if any(step < 1 for step in steps):
            return None
        # An end beyond the dimension is ONNX's way of writing "to its end".
        return StaticSlice(
            {
                axis: slice(start, end if end < 2**31 - 1 else None, step)
                for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
            }
        )

    def _linear(self, node: fx.Node) -> nn.Module | None:
        matrix = node.args[1]
        if not isinstance(matrix, fx.Node) or matrix.op != "get_attr" or self._first[matrix].ndim != 2:
            return None
        weight = self._first[matrix].T
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight.data = weight.clone(memory_format=torch.contiguous_format)
        return layer

    def _replace_(self, node: fx.Node, layer: nn.Module | None, arguments: int) -> None:
        if layer is None:
            return
        self._module.set_submodule(str(node.target), layer)
        node.args = node.args[:arguments]
        node.kwargs = {}

    def _join_shortcut_(self, node: fx.Node) -> None:
        """Every second pixel, then zero channels on both sides: the option-A shortcut, whose widths prune."""
        pad = self._layer(node, StaticPad)
        taken = self._layer(node.args[0], StaticSlice) if pad is not None else None
        if pad is None or taken is None or pad.mode != "constant" or pad.value or len(pad.pads) != 6:
            return
        # Exports of x[:, :, ::2, ::2] slice in one step or in one for each dimension.
        first = node.args[0]
        inner = self._layer(first.args[0], StaticSlice)
        source = first.args[0].args[0] if inner is not None else first.args[0]
        ranges = {**taken.ranges, **(inner.ranges if inner is not None else {})}
        into, out = self._first[source], self._first[node]
        added = out.shape[1] - into.shape[1]
        if pad.pads != (0, 0, 0, 0, added // 2, added - added // 2) or into.ndim != 4:
            return
        halves = {dim: range(into.shape[dim])[part] for dim, part in ranges.items()}
        if any(halves.get(dim) != range(0, into.shape[dim], 2) for dim in (2, 3)):
            return
        if any(halves[dim] != range(into.shape[dim]) for dim in halves if dim not in (2, 3)):
            return
        self._module.set_submodule(str(node.target), OptionAShortcut(into.shape[1], out.shape[1]))
        node.args = (source,)

    def _layer(self, node: Any, kind: type[Any]) -> Any:
        """The module that a node calls, if it is of that kind."""
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return None
        module = self._module.get_submodule(str(node.target))
        return module if isinstance(module, kind) else None

    def _clean_(self) -> None:
        """Remove what nothing uses any more, buffers included."""
        graph = self._module.graph
        graph.eliminate_dead_code()
        used = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
        for name, _ in list(self._module.named_buffers()):
            owner, _, leaf = name.rpartition(".")
            if owner == "initializers" and name not in used:
                delattr(self._module.get_submodule(owner), leaf)
        self._module.delete_all_unused_submodules()
        graph.lint()
        self._module.recompile()
