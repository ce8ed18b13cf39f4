"""``tierwise infer``: a picture in, an answer with its story out."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.errors import InvalidTensorError, TierwiseError, UnavailableError
from tierwise import infer_command
from tierwise.pictures import drawn, read_picture


def _arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    infer_command.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture(autouse=True)
def _nobody_at_the_default_address(monkeypatch: pytest.MonkeyPatch) -> None:
    # Port 9 (discard) is nobody's; an agent of this machine's owner may be at the real default.
    monkeypatch.setattr(infer_command, "DEFAULT_URL", "http://127.0.0.1:9")


def test_without_an_agent_the_bundled_model_answers_here(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = infer_command.run(_arguments("--index", "7"))

    told = capsys.readouterr()
    assert code == 0
    assert "answered by edge" in told.out
    assert "true label:" in told.out
    assert "answers in this process" in told.err


def test_the_story_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    infer_command.run(_arguments("--index", "7", "--explain"))

    told = capsys.readouterr().out
    assert "edge (infer, fashion " in told
    assert "In the end: " in told
    assert "Guarantee " in told


async def test_the_story_of_a_running_agent_is_part_of_the_object(
    agent_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _arguments("--index", "7", "--json", "--explain", "--url", agent_url)

    await asyncio.to_thread(infer_command.run, arguments)

    said = json.loads(capsys.readouterr().out)
    assert said["explanation"]["tiers"][0]["site"] == "agent-1"


@pytest.mark.parametrize("explanation", ["", "{}", "{"])
def test_an_agent_that_explains_nothing_is_no_failure(
    capsys: pytest.CaptureFixture[str], explanation: str
) -> None:
    infer_command._show_explanation(explanation)

    told = capsys.readouterr()
    assert told.out == ""
    assert "agent" in told.err


async def test_a_running_agent_is_asked(agent_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = _arguments("--index", "7", "--json", "--url", agent_url, "--residency", "device")

    code = await asyncio.to_thread(infer_command.run, arguments)

    said = json.loads(capsys.readouterr().out)
    assert code == 0
    assert said["tier"] == "edge"
    assert said["provenance"][0]["site"] == "agent-1"
    assert said["round_trip_ms"] > 0


async def test_what_the_agent_refuses_is_told(agent_url: str) -> None:
    arguments = _arguments("--index", "7", "--url", agent_url, "--model", "plants")

    with pytest.raises(TierwiseError, match="served here"):
        await asyncio.to_thread(infer_command.run, arguments)


def test_an_agent_that_was_named_and_is_not_there_is_an_error() -> None:
    with pytest.raises(UnavailableError, match="tierwise agent run"):
        infer_command.run(_arguments("--index", "7", "--url", "http://127.0.0.1:9"))


def test_an_index_beyond_the_pictures_is_refused() -> None:
    with pytest.raises(InvalidTensorError, match="goes from 0"):
        infer_command.run(_arguments("--index", "999999"))


def test_a_picture_file_is_made_grey_and_small(tmp_path: Path) -> None:
    path = tmp_path / "shirt.png"
    Image.fromarray(np.full((56, 56, 3), 255, np.uint8)).save(path)

    pixels = read_picture(path)

    assert pixels.shape == (28, 28)
    assert pixels.dtype == np.dtype(np.float32)
    assert pixels.max() == pixels.min() == 1.0


@pytest.mark.parametrize(
    ("array", "brightest"),
    [(np.full((28, 28), 255, np.uint8), 1.0), (np.full((28, 28), 0.5, np.float64), 0.5)],
)
def test_an_array_file_is_taken_as_it_is(
    tmp_path: Path, array: np.ndarray, brightest: float
) -> None:
    path = tmp_path / "picture.npy"
    np.save(path, array)

    assert read_picture(path).max() == pytest.approx(brightest)


@pytest.mark.parametrize("array", [np.zeros((27, 28), np.uint8), np.zeros((28, 28), np.int64)])
def test_an_array_of_another_form_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "picture.npy"
    np.save(path, array)

    with pytest.raises(InvalidTensorError, match="must hold"):
        read_picture(path)


@pytest.mark.parametrize("name", ["gone.png", "text.png", "text.npy"])
def test_what_is_no_picture_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.png").write_text("<html>403</html>")
    (tmp_path / "text.npy").write_text("<html>403</html>")

    with pytest.raises(InvalidTensorError, match=name):
        read_picture(tmp_path / name)


def test_a_picture_is_drawn_with_dark_and_bright_characters() -> None:
    pixels = np.zeros((28, 28), np.float32)
    pixels[:2, :3] = 1.0

    lines = drawn(pixels).split("\n")

    assert lines == ["@@@", *[""] * 13]


def test_an_answer_of_nobody_names_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    said = {"outcome": "abstained", "reason": "stopped", "latency_ms": 0.1, "round_trip_ms": 1.0}

    infer_command._show({**said, "provenance": []})

    assert "no answer: abstained (stopped)\n" in capsys.readouterr().out
