"""Operators of an imported graph that belong into the weights beside them.

Converters leave products and sums with constants behind (what batch norms became), and channels-last ones a
transpose before every flattening. None of them prunes: a constant keeps its length when channels go, and
behind a transpose a channel's columns are no longer neighbours. In the weights they cost nothing either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

Values = dict[fx.Node, Any]
WITH_WEIGHTS = nn.Conv1d | nn.Conv2d | nn.Linear


class SpatialUnsqueeze(nn.Module):
    """One pixel of every channel, as a picture; any number of channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, channels] → [batch, channels, 1, 1]."""
        return x[:, :, None, None]


class Absorber:
    """Puts constants and orders of channels into weights, in place; the module computes the same.

    Args:
        module: modules for layers, `get_attr` for constants.
        values: what every node gave for some samples.
    """

    def __init__(self, module: fx.GraphModule, values: Values) -> None:
        self._module = module
        self._values = values

    def absorb_(self) -> None:
        """Absorb whatever can be; dead constants are left for the caller to remove."""
        nodes = [node for node in self._module.graph.nodes if node.op == "call_module"]
        for node in nodes:
            self._drop_reshape_(node)
        left = [node for node in nodes if not self._absorbed_(node, self._into_layer_)]
        # Backwards: of a product and a sum, the sum stands nearer to the layer that takes them.
        left = [node for node in reversed(left) if not self._absorbed_(node, self._into_users_)]
        for node in reversed(left):
            if not self._absorbed_(node, self._into_layer_):
                self._into_own_layer_(node)
            if isinstance(self._called(node), nn.Flatten):
                self._absorb_order_(node)

    def _absorbed_(self, node: fx.Node, into: Callable[[fx.Node, fx.Node, torch.Tensor, str], bool]) -> bool:
        """Whether `node` is gone now: a sum or product with a constant that went where `into` puts it."""
        found = self._constant(node)
        if found is None:
            return False
        source, value, kind = found
        nothing = kind == "add" and not value.any() and self._values[source].shape == self._values[node].shape
        if not nothing and not into(node, source, value, kind):
            return False
        node.replace_all_uses_with(source)
        self._module.graph.erase_node(node)
        return True

    def _constant(self, node: fx.Node) -> tuple[fx.Node, torch.Tensor, str] | None:
        """What a node adds to or multiplies, by which constant, and "add" or "mul"."""
        module = self._called(node)
        if type(module).__name__ != "OnnxBinaryMathOperation" or len(node.args) != 2 or node.kwargs:
            return None
        function: Any = getattr(module, "math_op_function", None)
        kind = {torch.add: "add", torch.mul: "mul"}.get(function)
        for source, constant in (node.args, node.args[::-1]):
            if kind is None or not isinstance(source, fx.Node) or not isinstance(constant, fx.Node):
                continue
            if constant.op == "get_attr" and source.op != "get_attr":
                return source, self._values[constant], kind
        return None

    def _into_layer_(self, node: fx.Node, source: fx.Node, value: torch.Tensor, kind: str) -> bool:
        """Into the layer that makes `source`, where nobody else uses that."""
        layer = self._weighted(source)
        if layer is None or len(source.users) != 1:
            return False
        dim = self._values[source].ndim - 1 if isinstance(layer, nn.Linear) else 1
        vector = _per_channel(value, self._values[source].shape, dim)
        if vector is None:
            return False
        if kind == "mul":
            layer.weight.data *= vector.reshape(-1, *[1] * (layer.weight.ndim - 1))
        if layer.bias is not None:
            layer.bias.data = layer.bias.data * vector if kind == "mul" else layer.bias.data + vector
        elif kind == "add":
            layer.bias = nn.Parameter(vector.clone())
        return True

    def _into_users_(self, node: fx.Node, source: fx.Node, value: torch.Tensor, kind: str) -> bool:
        """Into the layers that take `node`, where nothing else does.

        A linear layer takes any vector; a convolution, which pads with zeros, one factor for all channels.
        """
        users = []
        for user in node.users:
            pad = self._called(user)
            users += list(user.users) if pad is not None and _pads_zeros(pad) else [user]
        layers = [self._weighted(user) for user in users]
        shape = self._values[source].shape
        vector = _per_channel(value, shape, len(shape) - 1)
        if layers and vector is not None and all(isinstance(layer, nn.Linear) for layer in layers):
            for layer in layers:
                if kind == "mul":
                    layer.weight.data *= vector
                else:
                    more = layer.weight.data @ vector
                    layer.bias = nn.Parameter(more if layer.bias is None else layer.bias.data + more)
            return True
        if not layers or any(layer is None for layer in layers) or kind != "mul" or value.numel() != 1:
            return False
        for layer in layers:
            layer.weight.data *= value.reshape(())
        return True

    def _into_own_layer_(self, node: fx.Node) -> None:
        """A batch norm behind an activation, as a depthwise convolution of one pixel: that is pruned."""
        found = self._constant(node)
        if found is None:
            return
        source, value, kind = found
        shape = self._values[source].shape
        vector = _per_channel(value, shape, 1) if len(shape) == 4 else None
        if vector is None or value.numel() == 1 or not self._follows_layer(source):
            return
        layer = nn.Conv2d(shape[1], shape[1], 1, groups=shape[1], bias=kind == "add")
        factor = vector if kind == "mul" else torch.ones(shape[1])
        layer.weight.data = factor.reshape(-1, 1, 1, 1).clone()
        if layer.bias is not None:
            layer.bias.data = vector.clone()
        self._module.set_submodule(str(node.target), layer)
        node.args = (source,)

    def _follows_layer(self, node: fx.Node) -> bool:
        """Whether a layer with weights stands somewhere before `node`, or makes it."""
        waiting, seen = [node], set()
        while waiting:
            found = waiting.pop()
            if self._weighted(found) is not None:
                return True
            if found not in seen:
                seen.add(found)
                waiting += found.all_input_nodes
        return False

    def _absorb_order_(self, node: fx.Node) -> None:
        """Flattening in another order is flattening in this one, with other columns in the layer after it."""
        turn = node.args[0]
        if not isinstance(turn, fx.Node) or type(self._called(turn)).__name__ != "OnnxTranspose":
            return
        source: Any = turn.args[0]
        sizes, order = self._values[source].shape, getattr(self._called(turn), "perm", None)
        layers = [self._weighted(user) for user in node.users]
        if order is None or order[0] != 0:
            return
        if len(turn.users) != 1 or any(not isinstance(layer, nn.Linear) for layer in layers):
            # Its columns cannot be followed then: with the width written down, it is not pruned.
            from pipeline.onnx_modules import StaticReshape

            self._module.set_submodule(str(node.target), StaticReshape((-1, self._values[node].shape[1])))
            return
        places = torch.arange(sizes[1:].numel()).reshape(sizes[1:])
        columns = places.permute([dim - 1 for dim in order[1:]]).flatten()
        for layer in layers:
            weight = layer.weight.data
            layer.weight.data = torch.empty_like(weight).index_copy_(1, columns, weight)
        node.args = (source,)

    def _drop_reshape_(self, node: fx.Node) -> None:
        """A reshape that keeps the shape goes; one that only adds two dimensions keeps no width."""
        if type(self._called(node)).__name__ != "StaticReshape":
            return
        source: Any = node.args[0]
        given, taken = self._values[node].shape, self._values[source].shape
        if given == taken:
            node.replace_all_uses_with(source)
        elif given == (*taken, 1, 1) and len(taken) == 2:
            self._module.set_submodule(str(node.target), SpatialUnsqueeze())

    def _weighted(self, node: fx.Node) -> Any:
        """The layer with weights that a node calls, if it calls one."""
        module = self._called(node)
        return module if isinstance(module, WITH_WEIGHTS) else None

    def _called(self, node: fx.Node) -> nn.Module | None:
        return self._module.get_submodule(str(node.target)) if node.op == "call_module" else None


def _per_channel(value: torch.Tensor, shape: torch.Size, dim: int) -> torch.Tensor | None:
    """[channels], if `value` spread over `shape` differs along dimension `dim` only."""
    spread = (*[1] * (len(shape) - value.ndim), *value.shape)
    if len(spread) != len(shape) or any(size != 1 for at, size in enumerate(spread) if at != dim):
        return None
    return value.reshape(-1).expand(shape[dim]) if spread[dim] in (1, shape[dim]) else None


def _pads_zeros(module: nn.Module) -> bool:
    value = getattr(module, "constant_value", getattr(module, "value", None))
    return "Pad" in type(module).__name__ and getattr(module, "mode", "") == "constant" and value == 0
