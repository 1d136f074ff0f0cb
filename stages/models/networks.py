"""The small image classifiers of the field's benchmarks, each ending in a layer named `fc`.

ReLU follows pooling here: the largest of a window is the same before and after it, and a quarter of the pixels are left.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CNN(nn.Module):
    """The 4-layer CNN of FedAvg (McMahan et al., AISTATS 2017): two 5x5 convolutions, two dense layers."""

    def __init__(self, channels: int, size: int, classes: int):
        super().__init__()
        side = ((size - 4) // 2 - 4) // 2  # two unpadded 5x5 convolutions, each halved by pooling
        if side < 1:
            raise ValueError("two 5x5 convolutions and poolings need images of 16x16 or more")
        self.conv1 = nn.Sequential(nn.Conv2d(channels, 32, 5), nn.MaxPool2d(2), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(nn.Conv2d(32, 64, 5), nn.MaxPool2d(2), nn.ReLU(inplace=True))
        self.fc1 = nn.Sequential(nn.Linear(64 * side * side, 512), nn.ReLU(inplace=True))
        self.fc = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.fc1(self.conv2(self.conv1(x)).flatten(1)))
        return logits


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al., CVPR 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu_(self.bn1(self.conv1(x)))
        return torch.relu_(self.bn2(self.conv2(out)).add_(self.shortcut(x)))


class ResNet(nn.Module):
    """A ResNet with one block per stage: 2 + 2 * stages layers, 64 channels doubling from stage to stage."""

    def __init__(self, stages: int, channels: int, classes: int):
        super().__init__()
        widths = [64 * 2**stage for stage in range(stages)]
        self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layers = nn.Sequential(
            *(Block(widths[max(stage - 1, 0)], width, 1 if stage == 0 else 2) for stage, width in enumerate(widths))
        )
        self.fc = nn.Linear(widths[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(torch.relu_(self.maxpool(self.bn1(self.conv1(x)))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits
