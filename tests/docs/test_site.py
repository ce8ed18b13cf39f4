"""The documentation as a site, and the manual page: complete, and nothing is from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import CATALOGUE
from tierwise.cli.commands import ADD_PARSERS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.timeout(120)
def test_all_pages_are_there_and_their_links_lead_somewhere(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in ROOT.glob("docs/*.md")}

    assert {path for path in pages if not (site / path.with_suffix(".html")).is_file()} == set()
    assert (site / "adr" / "index.html").is_file()


@pytest.mark.timeout(120)
def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loads = re.compile(
        r'<(?:script|img|iframe)[^>]*src="(?:https?:)?//|<link[^>]*href="(?:https?:)?//'
    )
    found = [path.name for path in site.rglob("*.html") if loads.search(path.read_text())]

    assert found == []


def test_every_error_code_says_what_to_do() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| \d+ \| [^|]+ \| ([^|]+) \|$", text, re.MULTILINE))

    assert set(rows) == set(CATALOGUE)
    assert all(len(advice) > 20 for advice in rows.values())


def test_the_manual_page_has_every_command() -> None:
    page = (ROOT / "deploy" / "man" / "tierwise.1").read_text()
    names = {add.__module__.rpartition(".")[2] for add in ADD_PARSERS} - {"tiers"}

    assert {name for name in names if f"tierwise {name}" not in page.replace("\\-", "-")} == set()


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse words help otherwise")
def test_the_manual_page_is_what_the_commands_say() -> None:
    written = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "man_page.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert written.stdout == (ROOT / "deploy" / "man" / "tierwise.1").read_text(), "make golden"
