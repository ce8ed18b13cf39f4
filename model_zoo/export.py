"""Turns trained networks into ONNX files (PyTorch, extra ``zoo``)."""

from __future__ import annotations

import copy
import logging
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model_zoo.idx import PICTURE_SIDE
from model_zoo.onnx_files import INPUT_NAME, OUTPUT_NAME, strip
from model_zoo.train import logits_of

OPSET = 18
NUM_CHECKED = 64
# Float32 sums in another order differ in the last digits; logits are of the order of 10.
TOLERANCE = 1e-3


class ExportMismatchError(RuntimeError):
    """The exported file does not compute what the network computes."""


def fold_normalisation(network: nn.Module) -> nn.Module:
    """A copy in which every batch normalisation is part of the convolution before it."""
    folded = copy.deepcopy(network).eval()
    for module in folded.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for position in range(len(module) - 1):
            first, second = module[position], module[position + 1]
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                module[position] = fuse_conv_bn_eval(first, second)
                module[position + 1] = nn.Identity()
    return folded


def export_network(network: nn.Module) -> onnx.ModelProto:
    """ONNX of a network: ``image`` FP32 (batch, 28, 28) in 0..1 to ``logits`` FP32 (batch, 10).

    Raises:
        ExportMismatchError: ONNX Runtime gives other logits than PyTorch.
    """
    folded = fold_normalisation(network)
    example = torch.zeros(2, PICTURE_SIDE, PICTURE_SIDE)
    # The exporter warns about libraries that this network does not use.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            folded,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    model = strip(program.model_proto)
    _compare(network, model)
    return model


def _compare(network: nn.Module, model: onnx.ModelProto) -> None:
    shape = (NUM_CHECKED, PICTURE_SIDE, PICTURE_SIDE)
    pixels = np.random.default_rng(0).random(shape, dtype=np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run([OUTPUT_NAME], {INPUT_NAME: pixels})
    difference = float(np.abs(found - logits_of(network, pixels)).max())
    if not difference <= TOLERANCE:
        raise ExportMismatchError(
            f"logits differ by {difference:.2g}, more than {TOLERANCE}, after the export"
        )
