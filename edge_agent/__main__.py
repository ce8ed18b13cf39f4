"""``python -m edge_agent``: the edge agent."""

import sys

from edge_agent.command import PROGRAM
from runtime.command_line import main

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
