"""The blocks of code in the documentation, and the commands in them, as a shell would have them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
SHELL = frozenset({"bash", "sh", "console"})
# What parts a line into commands; two of them are kept together by the lexer.
_BETWEEN = re.compile(r"[|&;()]+")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_REDIRECTION = re.compile(r"[<>]+")


@dataclass(frozen=True)
class Block:
    """One fenced block; ``line`` is that of its fence, from 1; "" where no language is said."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every page whose blocks are looked at."""
    return [
        *sorted(ROOT.glob("docs/**/*.md")),
        ROOT / "README.md",
        *sorted(ROOT.glob("examples/*/README.md")),
    ]


def blocks_of(text: str, page: str) -> list[Block]:
    """The blocks of a page, by CommonMark; indented ones have no language."""
    return [
        Block(page, token.map[0] + 1, token.info.split(" ")[0], token.content)
        for token in MarkdownIt("commonmark").parse(text)
        if token.type in ("fence", "code_block") and token.map
    ]


def all_blocks() -> list[Block]:
    """Of all pages."""
    return [
        block
        for page in pages()
        for block in blocks_of(page.read_text(), str(page.relative_to(ROOT)))
    ]


def lines_of(block: Block) -> list[str]:
    """What is typed: without prompts and what was printed, continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", block.text).splitlines()
    if any(line.startswith("$ ") for line in joined):
        return [line[2:] for line in joined if line.startswith("$ ")]
    return [line for line in joined if line.strip()]


def commands_in(line: str) -> list[list[str]]:
    """The simple commands of a line, without assignments, redirections, comments and sudo.

    Raises:
        ValueError: a quotation that does not end.
    """
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    found: list[list[str]] = [[]]
    tokens = iter(lexer)
    for token in tokens:
        if token.startswith("#"):
            break
        if _BETWEEN.fullmatch(token):
            found.append([])
        elif _REDIRECTION.fullmatch(token) or token.endswith(">&"):
            # A descriptor before it is a word of its own: 2>&1.
            if found[-1][-1:] == ["2"]:
                found[-1].pop()
            next(tokens, None)
        elif token != "sudo" and (found[-1] or not _ASSIGNMENT.match(token)):
            found[-1].append(token)
    return [words for words in found if words]


def tierwise_words(words: list[str]) -> list[str] | None:
    """What ``tierwise`` is told by a command, also one that runs in a container; None: nothing."""
    for at, word in enumerate(words):
        if word.rpartition("/")[2] == "tierwise" and (at == 0 or "exec" in words[:at]):
            return words[at + 1 :]
    return None
