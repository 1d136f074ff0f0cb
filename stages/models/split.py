"""Client models: a feature extractor (`base`) of any architecture and a `head`, found by name.

An architecture is named as in `stages.models.zoo`. Its head is linear unless `+WIDTH`, once or more, adds hidden
layers: `resnet34+256` has a head feature_dim -> 256 -> classes with ReLU between.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from stages.errors import UserError, printable
from stages.foreign import reason
from stages.models import convolution, zoo
from stages.models.groups import VITS
from stages.models.pretrained import Weights, load
from stages.randomness import seeded

DIGITS = 6  # of the width of a hidden layer
# What a model's code may raise when images or classes don't suit it.
UNFIT = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError)


class Averaged(nn.Module):
    """`nn.AdaptiveAvgPool1d`: features [B, width] to [B, feature_dim], overlapping where one does not divide the other.

    PyTorch's own adds up its gradient on a GPU in an order that differs from run to run.
    """

    def __init__(self, feature_dim: int):
        super().__init__()
        self.feature_dim = feature_dim
        self._averages = torch.zeros(0)  # float32 [feature_dim, width], made when the width is seen

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] % self.feature_dim == 0:
            return x.view(*x.shape[:-1], self.feature_dim, -1).mean(-1)
        if self._averages.device != x.device or self._averages.dtype != x.dtype or not len(self._averages):
            with torch.inference_mode(False):  # training needs it, whichever pass sees the width first
                unit = torch.eye(x.shape[-1], device=x.device, dtype=x.dtype)
                self._averages = F.adaptive_avg_pool1d(unit, self.feature_dim).T.contiguous()
        return F.linear(x, self._averages)

    def extra_repr(self) -> str:
        return str(self.feature_dim)


class SplitModel(nn.Module):
    """`head(base(x))`: base maps images to features [B, feature_dim], head features to projections [B, classes].

    The base is a classifier whose last linear layer, at the path `cut`, is replaced by an average pooling, which brings
    the width of any architecture to `feature_dim`. Without a `head` a linear one is made.
    """

    def __init__(self, classifier: nn.Module, feature_dim: int, classes: int, head: nn.Module | None = None):
        super().__init__()
        linear = [name for name, module in classifier.named_modules() if name and isinstance(module, nn.Linear)]
        if not linear:
            raise UserError("A client model must end in a linear layer; this one has none.")
        self.cut = linear[-1]
        parent, _, leaf = self.cut.rpartition(".")
        setattr(classifier.get_submodule(parent), leaf, Averaged(feature_dim))
        self.base = classifier
        self.bf16 = False  # whether the base multiplies matrices in bfloat16
        self.head = head or nn.Linear(feature_dim, classes)

    def features(self, x: Tensor) -> Tensor:
        """Features float32 [B, feature_dim] of images float32 [B, C, H, W]."""
        features: Tensor
        if not self.bf16:  # without autocast, which PyTorch 2.6 can't write into a program
            features = self.base(x)
            return features
        with torch.autocast(x.device.type, torch.bfloat16):
            features = self.base(x)
        return features.float()

    def logits(self, features: Tensor) -> Tensor:
        """Projections [B, classes] of features [B, feature_dim]."""
        projections: Tensor = self.head(features)
        return projections

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.features(x))

    if TYPE_CHECKING:  # nn.Module's own takes and gives anything

        def __call__(self, x: Tensor) -> Tensor: ...


def architectures(models: str, clients: int) -> list[str]:
    """The architecture of each client: client i takes part i mod n of the list `models`."""
    parts = listed(models)
    return [parts[client % len(parts)] for client in range(clients)]


def listed(models: str) -> list[str]:
    """The architectures of a list such as `small,resnet34+256`; those of a group get the hidden layers that follow its name.

    Raises UserError for one that does not exist.
    """
    parts = []
    for part in map(str.strip, models.split(",")):
        name, plus, widths = part.partition("+")
        parts += [f"{member}{plus}{widths}" for member in zoo.GROUPS.get(name, (name,))]
    for part in parts:
        zoo.factory(parsed(part)[0])
    return parts


def parsed(architecture: str) -> tuple[str, list[int]]:
    """`resnet34+512+256` as its name and the widths of its head's hidden layers."""
    name, *widths = architecture.split("+")
    if not all(width.isdecimal() and len(width) <= DIGITS and int(width) for width in widths):
        raise UserError(
            f"In '{printable(architecture)}' each + must be followed by the width of a hidden layer, as in {printable(name)}+256."
        )
    return name, [int(width) for width in widths]


def build(
    architecture: str,
    image_shape: tuple[int, int, int],
    classes: int,
    feature_dim: int,
    seed: int,
    pretrained: Mapping[str, Weights] | None = None,
) -> SplitModel:
    """A freshly initialised model on the CPU; its weights depend on `seed` alone.

    Where `pretrained` has weights for the architecture, its base starts from these. Raises UserError if the
    architecture does not take such images, does not give flat features, or the weights are another model's.
    """
    channels, size, _ = image_shape
    name, hidden = parsed(architecture)
    factory = zoo.factory(name)
    with seeded(seed):
        try:
            model = SplitModel(
                factory(channels, size, classes), feature_dim, classes, made_head(name, feature_dim, hidden, classes)
            )
        except UNFIT as error:
            raise UserError(f"Model {name} can't be built for {size}x{size} images ({reason(error)}).") from error
    if pretrained and name in pretrained:
        load(model.base, model.cut, pretrained[name])
    return model


def made_head(name: str, feature_dim: int, hidden: list[int], classes: int) -> nn.Module:
    """The head of HtFLlib's models: linear or with ReLU between layers; its ViT's has 768 units and Tanh.

    HtFLlib also puts a ReLU after the last layer of the former, so that no logit can be negative; here there is none.
    """
    activation: type[nn.Module] = nn.ReLU
    if name in VITS and not hidden:
        hidden, activation = [768], nn.Tanh
    first, *others = (nn.Linear(*widths) for widths in pairwise([feature_dim, *hidden, classes]))
    if not others:
        return first
    return nn.Sequential(first, *(layer for linear in others for layer in (activation(), linear)))


class Unfilled(TorchFunctionMode):
    """Fills no tensor: on the meta device that does nothing, and yet PyTorch imports its compiler for it, for over a second."""

    FILLS = ("constant_", "kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in self.FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def meta_model(architecture: str, image_shape: tuple[int, int, int], classes: int, feature_dim: int) -> SplitModel:
    """The model on the meta device, without memory or time for its weights: good for counts and shapes.

    A model whose code reads values while it is built (RegNet's does) is built in full instead.
    """
    try:
        with torch.device("meta"), Unfilled():
            return build(architecture, image_shape, classes, feature_dim, seed=0)
    except UserError:
        return build(architecture, image_shape, classes, feature_dim, seed=0)


def shapes(model: SplitModel, image_shape: tuple[int, int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of features and projections for two images; UserError if the model can't take them."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            features = model.base(torch.zeros(2, *image_shape, device=device))
            if features.ndim != 2:
                raise ValueError(f"features have shape {tuple(features.shape)}, not [images, width]")
            return tuple(features.shape), tuple(model.head(features).shape)
    except UNFIT as error:
        size = "x".join(map(str, image_shape))
        raise UserError(f"The model does not take {size} images ({reason(error)}).") from error
    finally:
        model.train(training)


def check_single(model: SplitModel, image_shape: tuple[int, int, int]) -> None:
    """UserError if the model can't train on a single image, as BatchNorm over one pixel can't."""
    device = next(model.parameters()).device
    try:
        copy.deepcopy(model).train()(torch.zeros(1, *image_shape, device=device))
    except UNFIT as error:
        raise UserError(f"It can't train on one image at a time ({reason(error)}); raise `batch_size`.") from error


def laid_out(model: SplitModel, channels_last: bool, device: torch.device) -> SplitModel:
    """The model in the memory format in which it convolves.

    With the channels last cuDNN compiles kernels for depthwise convolutions, anew in each thread: the first step of
    mobilenet_v2 took 3.5 to 7.6 s on an H100, and 0.15 s with the channels first, where every later step took a sixth less.
    """
    depthwise = any(isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1 for layer in model.modules())
    last = channels_last and not (depthwise and device.type == "cuda")
    if last and device.type == "cpu":
        convolution.quick(model)
    return model.to(memory_format=torch.channels_last if last else torch.contiguous_format)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
