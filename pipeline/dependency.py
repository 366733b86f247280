"""Which tensors must lose channels together: Torch-Pruning's dependency graph, with our own leaf modules."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator

import torch
import torch_pruning as tp
from torch import nn

from pipeline.errors import ModelError
from pipeline.zoo.resnet import OptionAShortcut

WIDTH_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)


class OptionAPruner(tp.BasePruningFunc):
    """A parameter-free shortcut has no tensor to cut: its two widths are plain numbers."""

    def prune_out_channels(self, layer: OptionAShortcut, idxs: list[int]) -> OptionAShortcut:
        layer.out_channels -= len(idxs)
        return layer

    def prune_in_channels(self, layer: OptionAShortcut, idxs: list[int]) -> OptionAShortcut:
        layer.in_channels -= len(idxs)
        return layer

    def get_out_channels(self, layer: OptionAShortcut) -> int:
        return layer.out_channels

    def get_in_channels(self, layer: OptionAShortcut) -> int:
        return layer.in_channels


class Dependencies:
    """The dependency graph of one module; pruning through it changes that module in place.

    Args:
        module: traced as it is, in evaluation mode.
        input_shape: shape of one sample, without the batch dimension.

    Raises:
        ModelError: the module cannot be run or traced; says at which line.
    """

    def __init__(self, module: nn.Module, input_shape: tuple[int, ...]) -> None:
        self.module = module
        self.modules = dict(module.named_modules())
        self.names = {layer: name for name, layer in self.modules.items()}
        example = torch.zeros(2, *input_shape)
        # It follows autograd, which a caller may have turned off.
        with warnings.catch_warnings(), torch.enable_grad():
            # Torch-Pruning warns of bare parameters (position embeddings); their units are checked below.
            warnings.simplefilter("ignore")
            try:
                self._graph = tp.DependencyGraph().build_dependency(
                    module, example, customized_pruners={OptionAShortcut: OptionAPruner()}
                )
            except Exception as error:
                raise ModelError(_where(error, input_shape)) from error

    def groups(self) -> Iterator[tp.Group]:
        """Every set of coupled widths, one group each, at its full width."""
        yield from self._graph.get_all_groups(root_module_types=list(WIDTH_LAYERS))

    def group(self, layer: str, indices: list[int]) -> tp.Group:
        """What must go along when `layer` loses the output channels `indices`."""
        module = self.modules[layer]
        function = self._graph.get_pruner_of_module(module).prune_out_channels
        return self._graph.get_pruning_group(module, function, indices)

    def width(self, layer: str) -> int:
        """Output channels or features that `layer` has now."""
        module = self.modules[layer]
        return int(module.out_features if isinstance(module, nn.Linear) else module.out_channels)

    def reaches_output(self, layer: str) -> bool:
        """True if `layer`'s output channels are the model's own outputs, which no plan may cut."""
        seen = set()
        queue = [self._graph.module2node[self.modules[layer]]]
        while queue:
            node = queue.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if not node.outputs:
                return True
            queue += [
                nxt
                for nxt in node.outputs
                if not isinstance(nxt.module, WIDTH_LAYERS) or _depthwise(nxt.module)
            ]
        return False

    def member_name(self, module: nn.Module) -> str | None:
        """The name of a group's member, None for operators and bare parameters."""
        return self.names.get(module)


def pruned_copy(module: nn.Module) -> nn.Module:
    """A copy that may be changed in place; the original stays as it is."""
    return copy.deepcopy(module)


def _depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups == module.out_channels > 1


def _where(error: Exception, input_shape: tuple[int, ...]) -> str:
    """The last line of the user's own code in the traceback, and what went wrong there."""
    trace = error.__traceback__
    place = "an unknown line"
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "site-packages" not in file and not file.endswith("pipeline/dependency.py") and "<" not in file:
            place = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return (
        f"the model cannot be traced with an input of shape {input_shape}: {type(error).__name__}: {error} "
        f"(at {place}); it must take one tensor [batch, *{input_shape}] and return one tensor"
    )
