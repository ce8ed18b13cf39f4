"""What the demo suggests works where it is printed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from runtime.errors import StartError
from tierwise.cli import main
from tierwise.cli.parser import build_parser
from tierwise.demo import plan
from tierwise.demo.next_steps import afterwards, called, meanwhile, program


def test_a_program_on_the_search_path_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "tierwise").touch()
    found = str(tmp_path / "tierwise")

    assert program(found, found) == "tierwise"


def test_one_that_is_not_is_called_as_it_was_started(tmp_path: Path) -> None:
    (tmp_path / "tierwise").touch()

    assert program(".venv/bin/tierwise", None) == ".venv/bin/tierwise"
    assert program("my env/bin/tierwise", str(tmp_path / "tierwise")) == "'my env/bin/tierwise'"


def test_a_module_is_called_by_its_interpreter() -> None:
    assert program("/x/tierwise/__main__.py", "/usr/bin/tierwise").endswith(" -m tierwise")
    assert sys.executable in program("-m", None)
    assert called()


def test_every_suggestion_is_a_command_line_that_is_understood() -> None:
    lines = [
        *afterwards("tierwise", Path("demo-1")),
        *meanwhile("tierwise", Path("d"), Path("o.json"), "http://127.0.0.1:8470", "h:1883"),
    ]

    for line in lines:
        words = line.replace("'to see what it does'", "look").split()
        assert words[0] == "tierwise"
        assert build_parser().parse_args(words[1:]).run


@pytest.mark.parametrize("name", ["file/state", "file"])
def test_a_folder_that_cannot_be_used_is_named(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StartError, match=r"cannot be used: .*--state names another"):
        plan.state_folder(str(tmp_path / name))
    assert main(["demo", "--state", str(tmp_path / name)]) == 3
    assert "cannot be used" in capsys.readouterr().err
