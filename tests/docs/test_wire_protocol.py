"""The client in docs/wire-protocol.md gets an answer, as it stands there."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.brokers import launch
from fakes.programs import Asker, TierProgram

DOCUMENT = Path(__file__).parents[2] / "docs" / "wire-protocol.md"


def _run(script: Path, port: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), "127.0.0.1", str(port), "plant"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.timeout(60)
async def test_any_plain_mqtt_client_gets_an_answer(tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    ask = tmp_path / "ask.py"
    ask.write_text(script)
    broker = launch(tmp_path / "broker", "auto")
    try:
        with TierProgram("gateway", "gateway-1", tmp_path, broker.address) as gateway:
            async with Asker() as asker:
                await asker.ready(gateway)
            heard = await asyncio.to_thread(_run, ask, broker.address.port)
    finally:
        broker.stop()

    assert heard.returncode == 0, heard.stderr
    assert heard.stdout.split()[0] in ("answered", "degraded")
    assert '"model_name":"fashion"' in heard.stdout


def test_the_client_is_about_thirty_lines() -> None:
    (script,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)

    assert len([line for line in script.splitlines() if line.strip()]) <= 32
