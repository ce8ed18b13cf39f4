"""Starts broker and three tiers here and asks about the test part: python run.py."""

from __future__ import annotations

import sys
from pathlib import Path

from tierwise.demo.trial import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).parent))
