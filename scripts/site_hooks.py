"""What the site has besides docs/: what docs/ links to in the tree, and a list of decisions."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# As they are in the site; in the tree they are beside docs/.
BESIDE = {
    "benchmarks/RESULTS.md": "benchmarks/RESULTS.md",
    "examples/sensor-activity/README.md": "examples/sensor-activity.md",
    "examples/text-language/README.md": "examples/text-language.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "SECURITY.md": "reporting.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds them."""
    for name, place in BESIDE.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / name)))
    files.append(File.generated(config, "adr/index.md", content=_decisions()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Links into the tree become links of the site."""
    if page.file.src_uri in BESIDE.values():
        # Their own links are of the tree.
        return re.sub(r"\[([^\]]*)\]\((?!https?:|#)[^)]*\)", r"\1", markdown)
    for name, place in BESIDE.items():
        markdown = markdown.replace(f"](../{name}", f"]({place}")
        markdown = markdown.replace(f"](../../{name}", f"](../{place}")
    return markdown


def _decisions() -> str:
    lines = ["# Decisions", "", "What was decided, why, and what was not done.", ""]
    for path in sorted((ROOT / "docs" / "adr").glob("[0-9]*.md")):
        title = path.read_text().splitlines()[0].lstrip("# ")
        lines.append(f"* [{title}]({path.name})")
    return "\n".join(lines) + "\n"
