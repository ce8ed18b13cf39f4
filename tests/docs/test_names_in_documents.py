"""What pages name in passing exists: settings, events, metrics, commands, tests, files."""

from __future__ import annotations

import argparse
import functools
import re
from pathlib import Path

import pytest

from cloud_tier.alerts.remedies import REMEDIES
from cloud_tier.settings import CloudSettings
from edge_agent.settings import EdgeSettings
from fakes.documents import ROOT, pages
from golden.metrics_document import described
from regional_gateway.settings import GatewaySettings
from runtime.settings_keys import keys, sections
from tierwise.cli.parser import build_parser

PAGES = [path for path in pages() if "adr" not in path.parts]
IDS = [str(path.relative_to(ROOT)) for path in PAGES]
ALERTS = ROOT / "docs" / "alerts.md"
KINDS = (EdgeSettings, GatewaySettings, CloudSettings)
# Words of settings that are something else on a page: a file, a program, a module.
FILES = re.compile(
    r"\.(json|jsonl|sqlite|md|py|toml|db|npz|pem|onnx|conf|acl|yaml|sh|example|damaged)$"
)


def in_backticks(path: Path) -> list[str]:
    """What is set as code in the text, without blocks."""
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", text)]


@functools.cache
def code() -> str:
    """All of the product's source."""
    packages = ("cloud_tier", "edge_agent", "regional_gateway", "runtime", "tierwise")
    return "".join(path.read_text() for one in packages for path in (ROOT / one).rglob("*.py"))


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_every_setting_and_every_event_that_is_named_exists(path: Path) -> None:
    known = {key.name for kind in KINDS for key in keys(kind)}
    heads = {name.split(".")[0] for kind in KINDS for name in sections(kind)}
    named = {
        word
        for text in in_backticks(path)
        for word in re.findall(r"^([a-z_]+\.[a-z_.]+)(?: = .*)?$", text)
        if word.split(".")[0] in heads and not FILES.search(word)
    }

    # What is no setting is an event of the log.
    assert {word for word in named - known if f'"{word}"' not in code()} == set()


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_every_command_that_is_named_exists(path: Path) -> None:
    for text in in_backticks(path):
        for words in re.findall(r"(?:^|&& )tierwise ([a-z][^&]*)", text):
            check_command(words.replace("\\|", "|").split())


def check_command(words: list[str]) -> None:
    """Fails where a command, or an option of it, does not exist; what it is given is free."""
    parser: argparse.ArgumentParser = build_parser()
    taken = 0
    for word in words:
        groups = parser._subparsers
        choices = dict(groups._group_actions[0].choices or {}) if groups else {}
        names = word.split("|")
        # What is given to a command is written as FILE, or is a path, or in quotes.
        if not choices or not re.fullmatch(r"[a-z][a-z-]*", names[0]):
            break
        assert set(names) <= set(choices), words
        parser = choices[names[0]]
        taken += 1
    assert taken, words
    options = {word.split("=")[0] for word in words if word.startswith("--")}
    assert options <= set(parser._option_string_actions), words


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_every_metric_that_is_named_exists(path: Path) -> None:
    known = {f"tierwise_{tier}_{one.name}" for one in described() for tier in one.tiers}
    named = {
        re.sub(r"_(bucket|sum|count)$", "", word)
        for text in in_backticks(path)
        for word in re.findall(r"tierwise_(?:edge|regional|cloud)_\w+", text)
    }

    # What ends in _ is the beginning of several.
    assert {word for word in named if not any(one.startswith(word) for one in known)} == set()


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_every_test_and_every_file_of_the_tree_that_is_named_exists(path: Path) -> None:
    places = r"(?:tests|deploy|examples|benchmarks|scripts|model_zoo|hardware_profiles|docs)"
    named = {
        word.split("#")[0]
        for text in in_backticks(path)
        for word in re.findall(rf"(?:^|\s)({places}/[\w./-]+)", text)
    }

    # What compose and the examples make themselves, and what only some pages have beside them.
    made = {word for word in named if "secrets" in word or "/build" in word}
    assert {word for word in named - made if not (ROOT / word).exists()} == set()


def test_every_kind_of_alert_has_a_remedy_whose_commands_exist() -> None:
    kinds = r"^\| `(\w+)`(?: \(`detail` is `(\w+)`\))? \|"
    rows = re.findall(kinds, ALERTS.read_text(), re.MULTILINE)

    assert {"/".join(filter(None, row)) for row in rows} == set(REMEDIES)
    for text in REMEDIES.values():
        for words in re.findall(r"`tierwise ([^`]+)`", text):
            check_command(words.split())


def test_every_threat_has_a_test() -> None:
    section = (ROOT / "docs" / "security.md").read_text().split("## Threat, what stops it")[1]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| ")][1:]

    assert len(rows) > 15
    for threat, _, tests in rows:
        found = re.findall(r"`(tests/[\w/]+\.py)`", tests)
        assert found, threat
        assert all("def test_" in (ROOT / one).read_text() for one in found), threat


@pytest.mark.parametrize(
    "words", [["metrics", "costs"], ["hardware", "benhc"], ["infer", "--indx", "7"], ["nothing"]]
)
def test_a_name_that_does_not_exist_is_found(words: list[str]) -> None:
    with pytest.raises(AssertionError):
        check_command(words)
