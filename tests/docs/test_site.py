"""The documentation as a site, and the manual page: complete, and nothing is from elsewhere."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.documents import blocks_of
from runtime.errors import CATALOGUE, TierwiseError
from tierwise.cli.commands import ADD_PARSERS

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "tierwise", "runtime", "edge_agent", "regional_gateway", "cloud_tier", "model_zoo",
    "hardware_profiles",
)  # fmt: skip


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
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in ROOT.glob("docs/**/*.md")}

    assert {path for path in pages if not (site / path.with_suffix(".html")).is_file()} == set()
    assert (site / "adr" / "index.html").is_file()


@pytest.mark.timeout(120)
def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loads = re.compile(
        r'<(?:script|img|iframe)[^>]*src="(?:https?:)?//|<link[^>]*href="(?:https?:)?//'
    )
    found = [path.name for path in site.rglob("*.html") if loads.search(path.read_text())]

    assert found == []


@pytest.mark.timeout(120)
def test_every_block_is_shown_as_one(site: Path) -> None:
    pages = [*site.glob("*.html"), *site.glob("examples/*.html"), *site.glob("api/*.html")]

    assert [path.name for path in pages if "```" in path.read_text()] == []
    for path in (ROOT / "docs").glob("*.md"):
        shown = (site / path.with_suffix(".html").name).read_text()
        assert shown.count('<div class="highlight"') == len(
            blocks_of(path.read_text(), path.name)
        ), path.name


def _fenced_python(path: Path) -> list[str]:
    return re.findall(r"^```py(?:thon)?\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


def _imported_by_examples() -> set[tuple[str, str]]:
    """What the pages and READMEs import from here."""
    pages = [*ROOT.glob("docs/*.md"), ROOT / "README.md", *ROOT.glob("examples/*/README.md")]
    return {
        (node.module, alias.name)
        for path in pages
        for block in _fenced_python(path)
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES
        for alias in node.names
        if node.module
    }


def _exported() -> set[tuple[str, str]]:
    """What modules say that others may import."""
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if "\n__all__ = " not in path.read_text():
                continue
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            module = name.removesuffix(".__init__")
            found |= {(module, one) for one in importlib.import_module(module).__all__}
    return found


def _subclasses(kind: type) -> set[type]:
    below: list[type] = kind.__subclasses__()
    return {kind, *(one for each in below for one in _subclasses(each))}


def _errors() -> set[tuple[str, str]]:
    return {
        (one.__module__, one.__name__)
        for one in _subclasses(TierwiseError)
        if one.__module__ == "runtime.errors"
    }


def _ports() -> set[tuple[str, str]]:
    return {
        (module, node.name)
        for module in ("runtime.ports", "runtime.ports_files", "runtime.ports_updates")
        for node in ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text()).body
        if isinstance(node, ast.ClassDef)
    }


@pytest.mark.timeout(120)
@pytest.mark.parametrize("public", [_imported_by_examples, _exported, _errors, _ports])
def test_every_public_name_is_on_a_page(
    site: Path, public: Callable[[], set[tuple[str, str]]]
) -> None:
    pages = "".join(path.read_text() for path in (site / "api").glob("*.html"))
    shown = set(re.findall(r'id="([\w.]+)"', pages))
    names = public()

    assert names
    assert {name for name in names if _place(*name) not in shown} == set()


def _place(module: str, name: str) -> str:
    """Where it is defined."""
    found = getattr(importlib.import_module(module), name)
    return f"{getattr(found, '__module__', module)}.{getattr(found, '__qualname__', name)}"


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
