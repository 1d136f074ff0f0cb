"""The names of the architectures, and the field's groups of them."""

from __future__ import annotations

HTFE8 = (
    "FedAvgCNN", "googlenet", "mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
)  # fmt: skip
VITS = ("vit_b_16", "vit_b_32")
HTC4 = ("", "+512", "+256", "+128")  # the four heads: linear, or one hidden layer
RESNETS = tuple(f"resnet{2 + 2 * stages}" for stages in range(1, 5))  # the field's small ones
NAMES = ("FedAvgCNN", *RESNETS, *HTFE8[1:], *VITS)

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
