"""``tierwise new task``: what is generated runs as it is, and nothing is overwritten."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.settings import EdgeSettings
from fakes.example_scripts import done, tell
from model_zoo.task_data import KINDS
from regional_gateway.settings import GatewaySettings
from runtime.errors import SettingsError
from runtime.settings import load
from tierwise.cli import main
from tierwise.cli.new import KINDS as KINDS_OF_HELP
from tierwise.new_task import FILES, write_task_folder


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_generated_becomes_a_hierarchy_that_answers(tmp_path: Path, kind: str) -> None:
    done(tmp_path, "-m", "tierwise", "new", "task", "mine", "--kind", kind)

    ran = subprocess.run(
        ["/bin/sh", "run.sh", "--made-up"],
        cwd=tmp_path / "mine",
        env={**os.environ, "PYTHON": sys.executable, "REQUESTS": "80"},
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert "certified" in ran.stdout
    assert "abstained 0   failed 0" in ran.stdout
    assert "cloud only" in ran.stdout


def test_own_data_take_the_place_of_those_made_up(tmp_path: Path) -> None:
    write_task_folder("mine", "text", tmp_path / "mine")
    lines = [f'"{word} number {at}",{word}' for word in ("yes", "no") for at in range(200)]
    (tmp_path / "mine.csv").write_text("\n".join(["text,label", *lines]))

    said = done(tmp_path / "mine", "prepare.py", tmp_path / "mine.csv")

    assert "200 examples of 2 classes" in said
    assert json.loads((tmp_path / "mine/build/data/task.json").read_text())["labels"] == [
        "no",
        "yes",
    ]


@pytest.mark.parametrize("words", [["nowhere.csv"], [], ["a.csv", "--made-up"]])
def test_data_that_are_not_there_are_named(tmp_path: Path, words: list[str]) -> None:
    write_task_folder("mine", "tabular", tmp_path / "mine")

    ran = tell(tmp_path / "mine", "prepare.py", *words)

    assert ran.returncode in (1, 2)
    assert "prepare" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_files_are_listed_and_settings_are_usable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "here"

    code = main(["new", "task", "mine", "--folder", str(folder), "--json"])

    said = json.loads(capsys.readouterr().out)
    assert code == 0
    assert said["files"] == list(FILES)
    assert all((folder / name).is_file() for name in said["files"])
    assert not [name for name in FILES if "@" in (folder / name).read_text().replace("$@", "")]
    edge = load(EdgeSettings, file=folder / "settings/edge.toml", environment={}, flags=())
    assert edge.settings.model.folder == "build/models/edge"
    load(GatewaySettings, file=folder / "settings/gateway.toml", environment={}, flags=())


def test_generated_scripts_are_in_the_style_of_the_project(tmp_path: Path) -> None:
    for kind in KINDS:
        write_task_folder("mine", kind, tmp_path / kind)

    for path in sorted(tmp_path.rglob("*.py")):
        text = path.read_text()
        compile(text, str(path), "exec")
        assert max(map(len, text.splitlines())) <= 100, path


@pytest.mark.parametrize("is_empty", [True, False])
def test_a_folder_that_is_there_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_empty: bool
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    if not is_empty:
        (folder / "README.md").write_text("my own words")
    before = {path: path.read_text() for path in folder.rglob("*")}

    code = main(["new", "task", "mine", "--folder", str(folder)])

    assert code == 3
    assert "stays as it is" in capsys.readouterr().err
    assert {path: path.read_text() for path in folder.rglob("*")} == before


def test_a_file_in_the_way_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")

    code = main(["new", "task", "mine", "--folder", str(tmp_path / "file" / "mine")])

    assert code == 3
    assert "could not be written" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "Mine", "9lives", "../up", "a/b", "a b", "a" * 49, "-x", "é"])
def test_names_that_cannot_be_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="no name of a task"):
        write_task_folder(name, "text", tmp_path / "mine")

    assert not (tmp_path / "mine").exists()


def test_kinds_that_are_none_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SettingsError, match="no kind of task"):
        write_task_folder("mine", "sound", tmp_path / "mine")

    assert main(["new", "task", "mine", "--kind", "txt"]) == 2
    assert "did you mean 'text'" in capsys.readouterr().err
    assert KINDS_OF_HELP == KINDS
