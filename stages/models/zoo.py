"""Every architecture by name, and the field's groups of them.

Besides the table: any other classifier of torchvision under its own name, `timm:NAME`, `package.module:factory`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from torch import nn

from stages import plugins
from stages.errors import UserError, unknown
from stages.models.networks import CNN, ResNet

Factory = Callable[[int, int, int], nn.Module]  # (channels, size, classes) -> classifier


def resnet(stages: int, channels: int, size: int, classes: int) -> nn.Module:
    """The field's small ResNets, ResNet-4 (one stage) to ResNet-10 (four)."""
    return ResNet(stages, channels, classes)


def from_torchvision(name: str, channels: int, size: int, classes: int) -> nn.Module:
    """A torchvision classifier without its auxiliary heads, its weights drawn anew."""
    from torchvision import models

    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options = {"image_size": size}
    elif name.startswith("maxvit_"):
        options = {"input_size": (size, size)}
    elif name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    model: nn.Module = models.get_model(name, num_classes=classes, **options)
    if name.startswith("squeezenet"):  # it classifies each pixel first and pools then
        model.classifier = nn.Sequential(nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))
    return model


def from_timm(name: str, channels: int, size: int, classes: int) -> nn.Module:
    """A timm model under a linear classifier of our own; timm flattens the features."""
    fixed = timm().get_pretrained_cfg(name).fixed_input_size
    body = timm().create_model(name, num_classes=0, **({"img_size": size} if fixed else {}))
    return nn.Sequential(body, nn.Linear(body.num_features, classes))


def timm() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ImportError:
        raise UserError("Models named timm:NAME need the package timm; install it with: pip install timm") from None


HTFE8 = (
    "FedAvgCNN", "googlenet", "mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
)  # fmt: skip
VITS = ("vit_b_16", "vit_b_32")
HTC4 = ("", "+512", "+256", "+128")  # the four heads: linear, or one hidden layer

ARCHITECTURES: dict[str, Factory] = {
    "FedAvgCNN": CNN,
    **{f"resnet{2 + 2 * stages}": partial(resnet, stages) for stages in range(1, 5)},
    **{name: partial(from_torchvision, name) for name in (*HTFE8[1:], *VITS)},
}

GROUPS: dict[str, tuple[str, ...]] = {
    "CNN": ("FedAvgCNN",),
    "small": ("FedAvgCNN", "resnet4", "resnet6", "resnet8"),
    "HtFE2": ("FedAvgCNN", "resnet18"),
    "HtFE3": ("resnet10", "resnet18", "resnet34"),
    "HtFE4": ("FedAvgCNN", "googlenet", "mobilenet_v2", "resnet18"),
    "HtFE5": HTFE8[1:6],
    "HtFE8": HTFE8,
    "HtFE9": ("resnet4", "resnet6", "resnet8", "resnet10", *HTFE8[3:]),
    "HtM10": (*HTFE8, *VITS),
    "Res34-HtC4": tuple(f"resnet34{head}" for head in HTC4),
    "HtFE8-HtC4": tuple(f"{name}{HTC4[i % 4]}" for i, name in enumerate(HTFE8)),
}


def factory(name: str) -> Factory:
    """What builds the architecture `name`; raises UserError if nothing does."""
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if name.startswith("timm:"):
        wanted = name.removeprefix("timm:")
        if not timm().is_model(wanted):
            raise UserError(f"timm has no model named '{wanted}'; timm.list_models() lists what it has.")
        return partial(from_timm, wanted)
    if plugins.is_path(name):
        return plugins.load(name, "models")
    from torchvision import models

    others = models.list_models(module=models)
    if name not in others:
        raise unknown("model or model group", name, {*ARCHITECTURES, *GROUPS, *others})
    return partial(from_torchvision, name)
