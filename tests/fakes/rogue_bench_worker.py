"""In place of the process that times a model: one that does what the model's version says."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from hardware_profiles.bench_protocol import Task
from runtime.adapters.artifacts import read_manifest


def main() -> int:
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    what = read_manifest(Path(task.folder)).version
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "garbage":
        sys.stdout.write("no JSON\n")
    if what == "raises":
        raise RuntimeError("no figures today")
    if what == "silent":
        time.sleep(600)
    return 3 if what == "exits" else 0


if __name__ == "__main__":
    sys.exit(main())
