"""``python -m cloud_tier``: the cloud tier."""

import sys

from cloud_tier.command import PROGRAM
from runtime.command_line import main

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
