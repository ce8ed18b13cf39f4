"""Names of published documents: which are allowed, and which never change under their name.

Rules of this file:
  * a name is letters, digits, ``.``, ``_`` and ``-`` and begins with a letter or digit, so that no
    path leads out of its folder or to a hidden file;
  * TUF with consistent snapshots is the layout: ``metadata/3.root.json``,
    ``metadata/timestamp.json``, ``targets/<folder>/<sha256>.<name>``.
"""

from __future__ import annotations

import re

MAX_PATH_LENGTH = 200
MAX_PARTS = 8
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_METADATA = re.compile(rf"metadata/{_PART}\.json", re.ASCII)
_TARGET = re.compile(rf"targets(/{_PART})+", re.ASCII)
_VERSIONED = re.compile(r"metadata/[0-9]+\.[^/]+", re.ASCII)
_NEXT_ROOT = re.compile(r"metadata/[0-9]+\.root\.json", re.ASCII)
_HASHED = re.compile(r"targets/(?:.+/)?([0-9a-f]{64})\.[^/]+", re.ASCII)


def is_document_path(path: str) -> bool:
    """Whether it is ``metadata/<name>.json`` or ``targets/<path>``, and leads nowhere else."""
    if len(path) > MAX_PATH_LENGTH or path.count("/") > MAX_PARTS:
        return False
    return bool(_METADATA.fullmatch(path) or _TARGET.fullmatch(path))


def is_root(path: str) -> bool:
    """Whether it is a version of the root: that the next one does not exist is the usual case."""
    return _NEXT_ROOT.fullmatch(path) is not None


def named_digest(path: str) -> str:
    """The digest that a target's name promises; empty where it promises none."""
    match = _HASHED.fullmatch(path)
    return match[1] if match else ""


def is_immutable(path: str) -> bool:
    """Whether there is only ever one content under that name."""
    return _VERSIONED.fullmatch(path) is not None or bool(named_digest(path))
