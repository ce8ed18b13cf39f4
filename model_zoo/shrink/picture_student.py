"""A small network of convolutions over pictures that learns from a large model (PyTorch, ``zoo``).

Stages of two 3 x 3 convolutions, each halving the picture, then the mean of every feature and one
dense layer. What callers send goes in as it is: its layout and the scale of its numbers are part of
the ONNX file. Pictures are shifted as it learns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model_zoo.shrink.distilling import Distilled, Progress, Pupil
from runtime.errors import StartError
from runtime.manifest import ModelManifest
from runtime.tensors import dtype_of

Float32s = npt.NDArray[np.float32]
_LEAST, _MOST, _STEPS = 16, 128, 128
_PEAK_RATE, _DECAY, _MOMENTUM = 0.1, 5e-4, 0.9
_MAX_SHIFT_SHARE = 0.08
_TEMPERATURE = 2.0
_OPSET = 18
_MAX_CHANNELS = 4
_PLANE, _VOLUME = 2, 3
_LEAST_SIDE = 8


class _Net(nn.Module):  # type: ignore[misc] # torch has no types where it is not installed
    def __init__(self, channels: int, classes: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        stages, last = [], channels
        for width in widths:
            for stride in (2, 1):
                stages.append(nn.Conv2d(last, width, 3, stride, 1, bias=False))
                stages += [nn.BatchNorm2d(width), nn.ReLU()]
                last = width
        self.stages = nn.Sequential(*stages)
        self.dense = nn.Linear(last, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.dense(self.stages(pictures).mean((2, 3)))


def layout_of(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The order that makes channels first of an example of this shape; None: a channel is missing.

    Raises:
        StartError: it is no picture.
    """
    if len(shape) == _PLANE and min(shape) >= _LEAST_SIDE:
        return None
    if len(shape) == _VOLUME:
        if shape[0] <= _MAX_CHANNELS < _LEAST_SIDE <= min(shape[1:]):
            return (0, 1, 2)
        if shape[2] <= _MAX_CHANNELS < _LEAST_SIDE <= min(shape[:2]):
            return (2, 0, 1)
    raise StartError(
        f"inputs of shape {list(shape)} are no pictures of at least {_LEAST_SIDE} x {_LEAST_SIDE}: "
        "take --kind dense or series"
    )


@dataclass(frozen=True, slots=True)
class Lessons:
    """Pictures (n, ...) as callers send them, their labels (n,), and the teacher's logits."""

    inputs: npt.NDArray[np.generic]
    labels: npt.NDArray[np.int64]
    opinions: Float32s


def distilled_picture(
    manifest: ModelManifest, lessons: Lessons, pupil: Pupil, progress: Progress
) -> Distilled:
    """The student, trained; the same of the same seed on one machine with one PyTorch.

    Raises:
        StartError: the inputs are no pictures.
    """
    order = layout_of(lessons.inputs.shape[1:])
    pictures = lessons.inputs.astype(np.float32)
    pictures = (
        pictures[:, None] if order is None else pictures.transpose(0, *(1 + a for a in order))
    )
    mean = pictures.mean((0, 2, 3), keepdims=True)
    deviation = pictures.std((0, 2, 3), keepdims=True) + 1e-6
    torch.manual_seed(pupil.seed)
    net = _Net(pictures.shape[1], len(manifest.labels), pupil.hidden)
    seen = torch.from_numpy((pictures - mean) / deviation)
    _train(net, seen, lessons, pupil, progress)
    contents = _as_onnx(net, manifest, order, mean[0], deviation[0])
    said = _logits(net, seen).argmax(1).numpy()
    agreement = float((said == lessons.opinions.argmax(1)).mean())
    num_parameters = sum(one.numel() for one in net.parameters())
    return Distilled(contents, num_parameters, agreement)


def _train(net: _Net, seen: Tensor, lessons: Lessons, pupil: Pupil, progress: Progress) -> None:
    """Follows the teacher at a temperature, and the labels (Hinton et al., 2015)."""
    generator = torch.Generator().manual_seed(pupil.seed)
    known = torch.from_numpy(lessons.labels)
    guide = functional.softmax(torch.from_numpy(lessons.opinions) / _TEMPERATURE, 1)
    optimizer = torch.optim.SGD(
        net.parameters(), lr=_PEAK_RATE, momentum=_MOMENTUM, nesterov=True, weight_decay=_DECAY
    )
    # Few examples make few steps: then each is of fewer.
    batches = max(1, len(seen) // min(_MOST, max(_LEAST, len(seen) // _STEPS)))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=_PEAK_RATE, total_steps=pupil.epochs * batches, pct_start=0.2
    )
    net.train()
    for epoch in range(pupil.epochs):
        shuffled = torch.randperm(len(seen), generator=generator)
        total = 0.0
        # A batch of one picture has no variance to normalise by.
        for chosen in torch.tensor_split(shuffled, batches):
            logits = net(_shifted(seen[chosen], generator))
            soft = functional.kl_div(
                functional.log_softmax(logits / _TEMPERATURE, 1), guide[chosen],
                reduction="batchmean",
            )  # fmt: skip
            hard = functional.cross_entropy(logits, known[chosen], label_smoothing=0.05)
            loss = pupil.trust * _TEMPERATURE**2 * soft + (1 - pupil.trust) * hard
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        progress(epoch + 1, pupil.epochs, f"loss {total / batches:.3f}")
    net.eval()


def _shifted(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Each batch moved by some pixels; what comes in is the mean colour, which is 0."""
    height, width = pictures.shape[2:]
    most = max(1, int(min(height, width) * _MAX_SHIFT_SHARE))
    down, right = (int(torch.randint(-most, most + 1, (1,), generator=generator)) for _ in range(2))
    padded = functional.pad(pictures, (most,) * 4)
    top, left = most + down, most + right
    return padded[:, :, top : top + height, left : left + width]


def _logits(net: _Net, pictures: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([net(part) for part in pictures.split(500)])


def _as_onnx(
    net: _Net,
    manifest: ModelManifest,
    order: tuple[int, ...] | None,
    mean: Float32s,
    deviation: Float32s,
) -> bytes:
    given, output = manifest.inputs[0], manifest.outputs[0]
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(name: str, value: npt.NDArray[np.generic]) -> str:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(kind: str, inputs: list[str], **attributes: Any) -> str:  # noqa: ANN401 - onnx's
        name = f"v{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    value = add("Cast", [given.name], to=TensorProto.FLOAT)
    if order is None:
        value = add("Unsqueeze", [value, weight("axes", np.array([1], np.int64))])
    elif order != tuple(range(len(order))):
        value = add("Transpose", [value], perm=[0, *(1 + axis for axis in order)])
    value = add("Sub", [value, weight("mean", mean)])
    value = add("Div", [value, weight("deviation", deviation)])
    for number, (conv, norm) in enumerate(_pairs(net)):
        folded = fuse_conv_bn_eval(conv, norm)
        kernel = weight(f"w{number}", folded.weight.detach().numpy())
        bias = weight(f"b{number}", folded.bias.detach().numpy())
        value = add(
            "Conv", [value, kernel, bias], kernel_shape=[3, 3], pads=[1] * 4,
            strides=list(conv.stride),
        )  # fmt: skip
        value = add("Relu", [value])
    value = add("ReduceMean", [value, weight("plane", np.array([2, 3], np.int64))], keepdims=0)
    dense = weight("w", net.dense.weight.detach().numpy())
    value = add("Gemm", [value, dense, weight("b", net.dense.bias.detach().numpy())], transB=1)
    nodes.append(
        helper.make_node(
            "Cast", [value], [output.name],
            to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype_of(output.datatype))),
        )
    )  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "student",
        [_value(given.name, given.datatype, given.shape)],
        [_value(output.name, output.datatype, (-1, len(manifest.labels)))],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _pairs(net: _Net) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    layers = list(net.stages)
    return list(zip(layers[::3], layers[1::3], strict=True))


def _value(name: str, datatype: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype_of(datatype)))
    return helper.make_tensor_value_info(name, kind, ["batch", *shape[1:]])
