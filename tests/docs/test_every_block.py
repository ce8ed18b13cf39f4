"""Every block of code of every page is looked at in a way that is named here; none is left out.

Commands of ``tierwise`` are understood by its parser, files by what reads them, Python runs, and
what is shown is shown by a program. Many pages are run as a whole by tests of their own
(``fakes.document_ways``); what is looked at here is looked at all the same.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.document_files import read_json, read_toml, read_unit, read_yaml
from fakes.document_ways import (
    DIAGRAM,
    JSON_FORMS,
    OTHERS,
    RUN_ELSEWHERE,
    SHOWN,
    UNDERSTOOD,
    WALKED,
)
from fakes.documents import (
    ROOT,
    SHELL,
    Block,
    all_blocks,
    blocks_of,
    commands_in,
    lines_of,
    tierwise_words,
)
from tierwise.cli.parser import build_parser

TESTS = Path(__file__).parents[1]
BLOCKS = all_blocks()
ROUTES = re.compile(
    r"/(v2|metrics|updates|api/v1)(/|$)|^https?://127\.0\.0\.1:\d+$"  # What ports serve.
)
KINDS = {*SHELL, "toml", "json", "yaml", "python", "ini", "text"}


def said_of(block: Block, table: dict[str, list[str]], name: str) -> str:
    """What a table says of a block: by page, in the order of the page."""
    same = [one for one in BLOCKS if one.page == block.page and one.language == block.language]
    said = table.get(block.page, [])
    if len(said) != len(same):
        pytest.fail(f"{block}: {name} has to say what each `{block.language}` of this page is")
    return said[same.index(block)]


def of(*languages: str) -> pytest.MarkDecorator:
    found = [block for block in BLOCKS if block.language in languages]
    return pytest.mark.parametrize("block", found, ids=str)


def test_every_block_has_a_language_that_is_looked_at() -> None:
    assert [str(block) for block in BLOCKS if block.language not in KINDS] == []


@of(*SHELL)
def test_every_command_is_understood(block: Block) -> None:
    commands = [words for line in lines_of(block) for words in commands_in(line)]

    assert commands
    for words in commands:
        told = tierwise_words(words)
        if told == ["--version"]:
            continue
        if told is not None:
            assert build_parser().parse_args(told).run, words
        else:
            check_other(words)


def check_other(words: list[str]) -> None:
    """Of a program that is not ours: whatever is ours in its words is there."""
    program = words[0].rpartition("/")[2]
    if program == "make":
        targets = re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets), words
        return
    assert program in OTHERS, f"say in OTHERS why {program} is not looked at: {words}"
    for word in words[1:]:
        if re.match(r"(deploy|scripts|examples|model_zoo)/", word):
            assert (ROOT / word).exists(), word
        extras = re.fullmatch(r"(?:tierwise|\.)\[([\w,]+)\]", word)
        if extras:
            pyproject = (ROOT / "pyproject.toml").read_text()
            assert all(f"\n{one} = [" in pyproject for one in extras[1].split(",")), word
        if word.startswith("http://127.0.0.1"):
            assert ROUTES.search(word), word
    if program == "systemctl":
        assert (ROOT / "deploy" / "systemd" / f"{words[-1]}.service").exists(), words


@of("toml")
def test_every_file_of_settings_is_taken(block: Block, tmp_path: Path) -> None:
    assert read_toml(block.text, tmp_path)


@of("json")
def test_every_piece_of_json_is_what_it_says(block: Block) -> None:
    read_json(block.text, said_of(block, JSON_FORMS, "JSON_FORMS"))


@of("yaml")
def test_every_piece_of_yaml_is_what_it_says(block: Block, tmp_path: Path) -> None:
    read_yaml(block.text, tmp_path)


@of("ini")
def test_every_drop_in_is_for_the_unit(block: Block) -> None:
    read_unit(block.text, (ROOT / "deploy/systemd/tierwise-agent.service").read_text())


@pytest.mark.timeout(60)
@of("python")
def test_every_example_runs(block: Block, tmp_path: Path) -> None:
    for (page, words), test in RUN_ELSEWHERE.items():
        if block.page == page and words in block.text:
            assert page.rpartition("/")[2] in (TESTS / test).read_text()
            compile(block.text, str(block), "exec")
            return

    ran = subprocess.run(
        [sys.executable, "-c", block.text],
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join(sys.path), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr


@of("text")
def test_what_is_shown_is_shown_by_a_program(block: Block) -> None:
    source = said_of(block, SHOWN, "SHOWN")
    if source == DIAGRAM:
        assert re.search(r"[─▶]|->", block.text)
    elif source.startswith("docs/test_"):
        name = block.page.removeprefix("docs/")
        assert name in (TESTS / source).read_text()
    else:
        files = [ROOT / source] if source.endswith(".py") else list((ROOT / source).rglob("*.py"))
        code = "".join(path.read_text() for path in files)
        rows = [re.findall(r"[a-z]{4,}", line) for line in block.text.splitlines()]
        unknown = [words for words in rows if words and not any(word in code for word in words)]
        assert unknown == []


def test_pages_that_are_walked_through_are_walked_through() -> None:
    for page, test in WALKED.items():
        folder, _, name = page.rpartition("/")
        known_as = folder.rpartition("/")[2] if folder.startswith("examples") else name
        assert known_as in (TESTS / test).read_text(), page
    assert set(WALKED) <= {block.page for block in BLOCKS}


def test_every_page_with_commands_is_walked_through_or_it_is_said_why_not() -> None:
    told = {block.page for block in BLOCKS if block.language in SHELL}

    assert [str(page) for page in sorted(told) if page not in {*WALKED, *UNDERSTOOD}] == []
    assert set(UNDERSTOOD) <= told
    for page, why in UNDERSTOOD.items():
        assert (ROOT / why.rpartition(" ")[2]).is_file(), page


def test_every_list_here_is_about_blocks_that_exist() -> None:
    programs = {
        words[0].rpartition("/")[2]
        for block in BLOCKS
        if block.language in SHELL
        for line in lines_of(block)
        for words in commands_in(line)
        if tierwise_words(words) is None
    }

    assert set(SHOWN) == {one.page for one in BLOCKS if one.language == "text"}
    assert set(JSON_FORMS) == {one.page for one in BLOCKS if one.language == "json"}
    assert programs - {"make"} == set(OTHERS)


def test_blocks_are_found_wherever_they_are() -> None:
    text = "* a\n\n  ```sh\n  make demo\n  ```\n\n> ~~~toml\n> a = 1\n> ~~~\n\n    indented\n"

    found = blocks_of(text, "page.md")

    assert [(one.line, one.language, one.text) for one in found] == [
        (3, "sh", "make demo\n"),
        (7, "toml", "a = 1\n"),
        (11, "", "indented\n"),
    ]


@pytest.mark.parametrize(
    ("line", "commands"),
    [
        ("$ tierwise x", [["$", "tierwise", "x"]]),
        ("A=1 sudo tierwise x > out 2>&1 &", [["tierwise", "x"]]),
        ("tierwise x --where 'a=3|7'   # why", [["tierwise", "x", "--where", "a=3|7"]]),
        ("(cd b && sum *) | awk '$1'", [["cd", "b"], ["sum", "*"], ["awk", "$1"]]),
        ("# a comment", []),
    ],
)
def test_a_line_is_read_as_a_shell_reads_it(line: str, commands: list[list[str]]) -> None:
    assert commands_in(line) == commands


def test_a_command_that_is_misspelt_is_found() -> None:
    block = Block("page.md", 1, "sh", "tierwise infer --index 7 --modle x\n")

    with pytest.raises(Exception, match="--modle"):
        test_every_command_is_understood(block)


def test_a_setting_that_is_misspelt_is_found(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="refresh_intervall_s"):
        read_toml("# edge.toml\n[updates]\nrefresh_intervall_s = 1\n", tmp_path)


def test_a_field_that_is_misspelt_is_found() -> None:
    with pytest.raises(ValueError, match="quantisation"):
        read_json('{"quantisation": {}}', "manifest")
