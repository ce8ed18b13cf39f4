"""The command line as a user starts it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tierwise

TIERS = {
    "edge_agent": ["--set", "agent=a", "--set", "region=r"],
    "regional_gateway": ["--set", "gateway=g", "--set", "region=r"],
    "cloud_tier": ["--set", "cloud=c"],
}
COMMANDS = {"edge_agent": "agent", "regional_gateway": "gateway", "cloud_tier": "cloud"}
QUIET_ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("TIERWISE_")}


def run(module: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        env={**QUIET_ENVIRONMENT, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


def test_version() -> None:
    done = run("tierwise", "--version")

    assert (done.returncode, done.stdout) == (0, f"tierwise {tierwise.__version__}\n")


def test_help_lists_every_command() -> None:
    done = run("tierwise", "--help")

    assert done.returncode == 0
    listed = ["demo", "infer", "agent", "gateway", "cloud", "config", "doctor", "metrics", "models"]
    assert all(f"\n    {command} " in done.stdout for command in listed)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from tierwise.cli.parser import build_parser; build_parser().format_help();"
        "print([m for m in ('numpy', 'onnxruntime', 'aiohttp', 'paho', 'rich', 'structlog')"
        " if m in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=15
    )

    assert done.stdout == "[]\n"


def test_a_misspelt_command_is_code_2_without_a_traceback() -> None:
    done = run("tierwise", "dmeo")

    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "tierwise: unknown command 'dmeo': did you mean 'demo'?"


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m tierwise config schema --tier edge --json | head -n 1"],
        env=QUIET_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("{\n", "")


@pytest.mark.parametrize("module", TIERS)
class TestTiers:
    def test_help(self, module: str) -> None:
        done = run(module, "--help")

        assert done.returncode == 0
        assert "--die-with-parent" in done.stdout

    @pytest.mark.parametrize("is_front_door", [False, True])
    def test_unusable_settings_are_code_2(
        self, module: str, is_front_door: bool, tmp_path: Path
    ) -> None:
        file = tmp_path / "settings.toml"
        file.write_text("[broker]\nprot = 1\n")
        start = ["tierwise", COMMANDS[module], "run"] if is_front_door else [module]

        done = run(*start, *TIERS[module], "--config", str(file))

        assert done.returncode == 2
        assert done.stderr == (
            f"tierwise: unknown setting 'broker.prot' in {file}: did you mean 'broker.port'?\n"
        )

    def test_a_model_that_is_missing_is_code_3(self, module: str, tmp_path: Path) -> None:
        done = run(
            module, *TIERS[module],
            "--set", f"model.folder={tmp_path / 'gone'}",
            "--set", f"state.folder={tmp_path / 'state'}",
            "--set", "http.port=0",
        )  # fmt: skip

        assert done.returncode == 3
        assert "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("tierwise: ")

    def test_a_port_in_use_is_code_3_and_named(self, module: str, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]

            done = run(
                module, *TIERS[module],
                "--set", f"http.port={port}",
                "--set", f"state.folder={tmp_path}",
                "--set", "broker.port=9",
            )  # fmt: skip

        assert done.returncode == 3
        assert str(port) in done.stderr.splitlines()[-1]

    def test_sigterm_ends_it_with_code_0(self, module: str, tmp_path: Path) -> None:
        log = tmp_path / "log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [
                    sys.executable, "-m", module, *TIERS[module],
                    "--set", "http.port=0",
                    "--set", "broker.port=9",
                    "--set", f"state.folder={tmp_path / 'state'}",
                    "--die-with-parent", str(os.getpid()),
                ],
                env=QUIET_ENVIRONMENT,
                stderr=output,
            )  # fmt: skip
        try:
            wait_for_event(log, "started")
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=15)
        finally:
            process.kill()
            process.wait(timeout=5)

        assert code == 0
        assert all(json.loads(line)["tier"] for line in log.read_text().splitlines())


def wait_for_event(log: Path, wanted: str) -> None:
    until = time.monotonic() + 15
    while wanted not in log.read_text():
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.05)
