"""The networks of the bundled picture task, one builder per tier and ensemble member.

All take pictures as ``(batch, 28, 28)`` float32 in 0..1 and return ``(batch, 10)`` logits.
Normalisation is the first layer, so that a device and a cloud cannot differ in how they prepare a
picture.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

# Mean and deviation of the training pictures, scaled to 0..1.
PIXEL_MEAN = 0.2860
PIXEL_STD = 0.3530
NUM_CLASSES = 10


class Normalise(nn.Module):
    """``(batch, 28, 28)`` pixels to ``(batch, 1, 28, 28)`` with zero mean and unit deviation."""

    def forward(self, pixels: Tensor) -> Tensor:
        return ((pixels - PIXEL_MEAN) * (1.0 / PIXEL_STD)).unsqueeze(1)


class ConvBlock(nn.Sequential):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, num_in: int, num_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(num_in, num_out, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(num_out),
            nn.ReLU(),
        )


class Residual(nn.Module):
    """Two convolutions beside an identity (He et al., CVPR 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = ConvBlock(width, width)
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(features + self.second(self.first(features)))


class Inception(nn.Module):
    """Parallel 1x1, 3x3 and double 3x3 branches, concatenated (Szegedy et al., CVPR 2016)."""

    def __init__(self, num_in: int, branch: int) -> None:
        super().__init__()
        self.point = ConvBlock(num_in, branch, kernel=1)
        self.near = nn.Sequential(ConvBlock(num_in, branch, kernel=1), ConvBlock(branch, branch))
        self.far = nn.Sequential(
            ConvBlock(num_in, branch, kernel=1),
            ConvBlock(branch, branch),
            ConvBlock(branch, branch),
        )

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([self.point(features), self.near(features), self.far(features)], dim=1)


def _classifier(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, NUM_CLASSES)]


def edge_network() -> nn.Module:
    """About 40,000 parameters: what a small computer runs in well under a millisecond."""
    return nn.Sequential(
        Normalise(),
        ConvBlock(1, 16, stride=2),
        ConvBlock(16, 32),
        ConvBlock(32, 48, stride=2),
        ConvBlock(48, 48),
        *_classifier(48),
    )


def regional_network() -> nn.Module:
    """A residual network of about 300,000 parameters."""
    return nn.Sequential(
        Normalise(),
        ConvBlock(1, 16),
        ConvBlock(16, 48, stride=2),
        Residual(48),
        Residual(48),
        ConvBlock(48, 96, stride=2),
        Residual(96),
        *_classifier(96),
    )


def cloud_residual() -> nn.Module:
    """A wider residual network of about 530,000 parameters."""
    return nn.Sequential(
        Normalise(),
        ConvBlock(1, 24),
        ConvBlock(24, 64, stride=2),
        Residual(64),
        Residual(64),
        ConvBlock(64, 128, stride=2),
        Residual(128),
        *_classifier(128),
    )


def cloud_wide() -> nn.Module:
    """Few layers, many channels: about 2,000,000 parameters (after Page, "ResNet-9", 2018)."""
    return nn.Sequential(
        Normalise(),
        ConvBlock(1, 32),
        ConvBlock(32, 64),
        nn.MaxPool2d(2),
        Residual(64),
        ConvBlock(64, 128),
        nn.MaxPool2d(2),
        Residual(128),
        ConvBlock(128, 256),
        nn.MaxPool2d(2),
        Residual(256),
        *_classifier(256),
    )


def cloud_plain() -> nn.Module:
    """A stack of convolutions and maximum pooling (Simonyan and Zisserman, ICLR 2015)."""
    return nn.Sequential(
        Normalise(),
        ConvBlock(1, 32),
        nn.MaxPool2d(2),
        ConvBlock(32, 96),
        ConvBlock(96, 96),
        nn.MaxPool2d(2),
        ConvBlock(96, 160),
        ConvBlock(160, 160),
        *_classifier(160),
    )


def cloud_inception() -> nn.Module:
    """Parallel branches of different depth, about 530,000 parameters."""
    return nn.Sequential(
        Normalise(),
        ConvBlock(1, 64, kernel=5, stride=2),
        Inception(64, 40),
        Inception(120, 40),
        ConvBlock(120, 128, stride=2),
        Inception(128, 64),
        Inception(192, 64),
        *_classifier(192),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "edge": edge_network,
    "regional": regional_network,
    "cloud-residual": cloud_residual,
    "cloud-plain": cloud_plain,
    "cloud-inception": cloud_inception,
    "cloud-wide": cloud_wide,
}


class MirrorAverage(nn.Module):
    """Mean of a network's logits on a picture and on its mirror image."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = (self.network(pixels) + self.network(pixels.flip(-1))) * 0.5
        return logits
