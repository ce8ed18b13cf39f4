"""From the start of an agent's process to its first answer over HTTP, with nobody to connect to.

The broker's address has no listener, the state folder is one of an earlier life. Each start is a
new process; the file system's cache is warm after the first one, which is why all are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from hardware_profiles.detect import detect
from model_zoo.catalog import bundled_policy

POLL_S = 0.01
GIVE_UP_S = 60.0
BODY = json.dumps(
    {
        "inputs": [
            {"name": "image", "shape": [1, 28, 28], "datatype": "FP32", "data": [0.5] * 784},
        ],
        "parameters": {"remaining_ms": 1000},
    }
).encode()


def main() -> None:
    """Prints the seconds of each start and their median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # One more, first: it leaves the state folder of an earlier life.
        taken_s = [one_start(Path(folder)) for _ in range(arguments.starts + 1)]
    result: dict[str, Any] = {
        "machine": str(detect()),
        "first_s": round(taken_s[0], 3),
        "starts_s": [round(taken, 3) for taken in taken_s[1:]],
        "median_s": round(statistics.median(taken_s[1:]), 3),
    }
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    for name, value in result.items():
        sys.stdout.write(f"{name:12} {value}\n")


def one_start(folder: Path) -> float:
    """Seconds until the first answer."""
    port, nobody = free_port(), free_port()
    settings = {
        "agent": "agent-1",
        "region": "plant",
        "broker.port": nobody,
        "http.port": port,
        "state.folder": str(folder / "state"),
        "escalation.policy": str(bundled_policy()),
    }
    flags = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TIERWISE_")}
    with (folder / "log").open("ab") as log:
        began_s = time.monotonic()
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "edge_agent", *flags],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
        )
    try:
        while not answers(port):
            if process.poll() is not None or time.monotonic() - began_s > GIVE_UP_S:
                raise SystemExit((folder / "log").read_text())
            time.sleep(POLL_S)
        return time.monotonic() - began_s
    finally:
        process.terminate()
        process.wait(20)


def answers(port: int) -> bool:
    """Whether an inference came back."""
    url = f"http://127.0.0.1:{port}/v2/models/fashion/infer"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, BODY), timeout=5) as reply:
            said = json.load(reply)["parameters"]
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return bool(said["outcome"] in ("answered", "degraded"))


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
