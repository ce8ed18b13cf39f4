"""Prints the manual page of ``tierwise``, the same bytes wherever it is run."""

from __future__ import annotations

import os
import re
import sys

# What argparse makes of a terminal, and what it colours, must not be in it.
os.environ |= {"COLUMNS": "100", "NO_COLOR": "1", "LANG": "C", "TIERWISE_OPERATOR": ""}

from argparse_manpage.manpage import Manpage

from tierwise.cli.parser import build_parser

_DATE = re.compile(r'(?m)^(\.TH \S+ "?1"?) .*$')


def manual() -> str:
    """The page in the language of man."""
    parser = build_parser()
    parser.man_short_description = "hierarchical edge-to-cloud inference"
    return _DATE.sub(r'\1 "" "Tierwise" "User Commands"', str(Manpage(parser))) + "\n"


if __name__ == "__main__":
    sys.stdout.write(manual())
