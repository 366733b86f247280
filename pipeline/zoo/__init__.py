"""The zoo: small networks of the families that run on edge devices, by name."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_bench.errors import MissingExtraError, unknown_name
from pipeline.errors import ModelError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ZooModel:
    """A network of the zoo.

    Args:
        name: how the user asks for it.
        family: what kind of network it is.
        description: one line for people.
        default_data: the data set it suits best.
        build: "module:function"; the function takes (input_shape, outputs).
        any_rank: True if samples may have any rank, not only [channels, height, width].
    """

    name: str
    family: str
    description: str
    default_data: str
    build: str
    any_rank: bool = False


MODELS: dict[str, ZooModel] = {
    "mlp": ZooModel(
        "mlp", "mlp", "two hidden layers of 256 and 128", "digits", "pipeline.zoo.plain:build_mlp", True
    ),
    "cnn": ZooModel(
        "cnn", "cnn", "five convolutions, 32 to 128 channels", "digits", "pipeline.zoo.plain:build_cnn"
    ),
    "vgg": ZooModel(
        "vgg",
        "vgg",
        "VGG-like, eight convolutions with batch norm, 32 to 256 channels",
        "fashion-mnist",
        "pipeline.zoo.plain:build_vgg",
    ),
    "resnet20": ZooModel(
        "resnet20",
        "resnet",
        "CIFAR ResNet, 20 layers, parameter-free shortcuts",
        "cifar10-jpeg",
        "pipeline.zoo.resnet:build_resnet20",
    ),
    "resnet32": ZooModel(
        "resnet32",
        "resnet",
        "CIFAR ResNet, 32 layers, parameter-free shortcuts",
        "cifar10-jpeg",
        "pipeline.zoo.resnet:build_resnet32",
    ),
    "resnet44": ZooModel(
        "resnet44",
        "resnet",
        "CIFAR ResNet, 44 layers, parameter-free shortcuts",
        "cifar10-jpeg",
        "pipeline.zoo.resnet:build_resnet44",
    ),
    "resnet56": ZooModel(
        "resnet56",
        "resnet",
        "CIFAR ResNet, 56 layers, parameter-free shortcuts",
        "cifar10-jpeg",
        "pipeline.zoo.resnet:build_resnet56",
    ),
    "mobilenetv2": ZooModel(
        "mobilenetv2",
        "mobilenet",
        "inverted residuals with depthwise convolutions and squeeze-excite",
        "cifar10-jpeg",
        "pipeline.zoo.mobilenet:build_mobilenetv2",
    ),
    "dscnn": ZooModel(
        "dscnn",
        "dscnn",
        "depthwise-separable CNN for keywords",
        "spoken-digits",
        "pipeline.zoo.mobilenet:build_dscnn",
    ),
    "vit": ZooModel(
        "vit",
        "vit",
        "vision transformer, four layers of width 64 with four heads",
        "fashion-mnist",
        "pipeline.zoo.vit:build_vit",
    ),
}


def build(name: str, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """A network of the zoo with fresh weights, drawn from torch's global generator.

    Args:
        name: a key of `MODELS`.
        input_shape: shape of one sample, without the batch dimension.
        outputs: classes, or 1 for regression.

    Raises:
        BadInputError: no such network; names the nearest.
        ModelError: the network cannot take samples of that shape.
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    entry = MODELS[name]
    if outputs < 1:
        raise ModelError(f"model {name!r} must have at least one output; got {outputs}")
    image = len(input_shape) == 3 and min(input_shape[1:]) >= 4
    if not image and not entry.any_rank:
        raise ModelError(
            f"model {name!r} takes samples [channels, height, width] of at least 4×4; got "
            f"{list(input_shape)}; use mlp for samples of another form"
        )
    module_name, _, function = entry.build.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("torch", "pipeline") from error
    network: nn.Module = getattr(module, function)(input_shape, outputs)
    return network
