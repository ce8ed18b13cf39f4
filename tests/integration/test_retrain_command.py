"""``tierwise retrain`` without PyTorch: schedules, and what is refused before training begins."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from tierwise.cli import main

PAIRS = ("--model", "fashion-edge", "--model", "fashion-regional", "--region", "plant")


def test_turns_are_shown_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retrain", "schedule", *PAIRS, "--every", "10d", "--count", "4", "--json"]) == 0
    turns = json.loads(capsys.readouterr().out)["turns"]
    assert main(["retrain", "schedule", *PAIRS, "--count", "3"]) == 0
    table = capsys.readouterr().out.splitlines()

    assert {turn["model"] for turn in turns} == {"fashion-edge", "fashion-regional"}
    assert turns[2]["at_s"] - turns[0]["at_s"] == pytest.approx(10 * 86_400)
    assert table[0].split() == ["BEGINS", "MODEL", "REGION"]
    assert len(table) == 4


def test_turns_that_do_not_fit_say_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retrain", "schedule", *PAIRS, "--every", "1d", "--apart", "1d"]) == 3

    assert "do not fit" in capsys.readouterr().err


def test_a_dataset_that_is_none_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["retrain", "run", "fashion", "--dataset", str(tmp_path)]) == 3

    assert "`tierwise data export` writes them" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is here")
def test_without_pytorch_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "a.npz", image=np.zeros((2, 28, 28), np.float32), labels=np.array([0, 1]))

    assert main(["retrain", "run", "fashion", "--dataset", str(tmp_path)]) == 3

    assert "pip install 'tierwise[zoo]'" in capsys.readouterr().err
