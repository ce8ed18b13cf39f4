"""Loads and runs a TensorFlow Lite file from standard input once, in a process that may crash.

    python -m runtime.adapters.litert_probe <FILE

``tflite-runtime`` does not verify a file before it reads it: a truncated one ends the process that
loads it. ``ai-edge-litert`` does, so nothing is probed for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from runtime.errors import ArtifactError

TIMEOUT_S = 60.0


def probe(contents: bytes, source: str) -> None:
    """Has another process load the file first.

    Raises:
        ArtifactError: that process did not survive it.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TIERWISE_")}
    environment["PYTHONPATH"] = os.pathsep.join(part or str(Path.cwd()) for part in sys.path)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "runtime.adapters.litert_probe"],
            input=contents,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ArtifactError(f"{source} could not be tried in a process: {error}") from error
    # One that was refused properly is refused again by whoever asks, who can say why.
    if done.returncode < 0:
        raise ArtifactError(
            f"{source} is not a model that LiteRT can run here: it ended the process that tried "
            f"it (signal {-done.returncode}); it is damaged"
        )


def main() -> int:
    """Returns 0 where the file was run."""
    import numpy as np  # noqa: PLC0415 - only here

    from runtime.adapters.litert_engine import ENGINE_ERRORS, find_package  # noqa: PLC0415

    try:
        interpreter = find_package().module.Interpreter(model_content=sys.stdin.buffer.read())
        interpreter.allocate_tensors()
        for one in interpreter.get_input_details():
            interpreter.set_tensor(one["index"], np.zeros(one["shape"], one["dtype"]))
        interpreter.invoke()
    except ENGINE_ERRORS:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
