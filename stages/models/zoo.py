"""Every architecture by name, and the field's groups of them.

Besides the table: any other classifier of torchvision under its own name, `timm:NAME`, `package.module:factory`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import nn

from stages import plugins
from stages.errors import UserError, unknown
from stages.models.groups import GROUPS as GROUPS
from stages.models.groups import HTFE8, RESNETS, VITS
from stages.models.networks import CNN, ResNet

Factory = Callable[[int, int, int], nn.Module]  # (channels, size, classes) -> classifier


def resnet(stages: int, channels: int, size: int, classes: int) -> nn.Module:
    """The field's small ResNets, ResNet-4 (one stage) to ResNet-10 (four)."""
    return ResNet(stages, channels, classes)


def from_torchvision(name: str, channels: int, size: int, classes: int) -> nn.Module:
    """A torchvision classifier without its auxiliary heads, its weights drawn anew."""
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options = {"image_size": size}
    elif name.startswith("maxvit_"):
        options = {"input_size": (size, size)}
    elif name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    model: nn.Module = imported("torchvision.models").get_model(name, num_classes=classes, **options)
    if name.startswith("squeezenet"):  # it classifies each pixel before it pools
        model.classifier = nn.Sequential(nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))
    return model


def from_timm(name: str, channels: int, size: int, classes: int) -> nn.Module:
    """A timm model under a linear classifier of our own; timm flattens the features."""
    fixed = timm().get_pretrained_cfg(name).fixed_input_size
    body = timm().create_model(name, num_classes=0, **({"img_size": size} if fixed else {}))
    return nn.Sequential(body, nn.Linear(body.num_features, classes))


def imported(library: str) -> ModuleType:
    """The module, imported as usual even while a model is built on the meta device, where tensors that it makes would stay."""
    with torch.device("cpu"):
        return importlib.import_module(library)


def timm() -> ModuleType:
    try:
        return imported("timm")
    except ImportError:
        raise UserError("Models named timm:NAME need the package timm; install it with: pip install timm") from None


ARCHITECTURES: dict[str, Factory] = {
    "FedAvgCNN": CNN,
    **{name: partial(resnet, stages) for stages, name in enumerate(RESNETS, start=1)},
    **{name: partial(from_torchvision, name) for name in (*HTFE8[1:], *VITS)},
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
    models = imported("torchvision.models")
    others = models.list_models(module=models)
    if name not in others:
        raise unknown("model or model group", name, {*ARCHITECTURES, *GROUPS, *others})
    return partial(from_torchvision, name)
