"""``python -m regional_gateway``: the regional gateway."""

import sys

from regional_gateway.command import PROGRAM
from runtime.command_line import main

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
