"""Many agents in one process: ``python -m tierwise.demo.fleet --config LIST``.

LIST is a file with the path of an agent's settings in each line. Each agent has its own state,
broker connection, HTTP port and models, as if it were on a device of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from edge_agent.app import serve
from edge_agent.settings import EdgeSettings
from runtime.logs import configure_logs
from runtime.settings import load
from runtime.supervise import run_service


async def serve_all(settings: list[EdgeSettings], stop: asyncio.Event) -> None:
    """Runs all of them until ``stop`` is set; the end of one ends all.

    Raises:
        ExceptionGroup: of the errors of ``edge_agent.app.serve``.
    """
    async with asyncio.TaskGroup() as group:
        for one in settings:
            group.create_task(serve(one, stop), name=one.agent)


def main() -> int:
    """Reads all settings, then runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--die-with-parent", dest="parent_pid", type=int)
    arguments = parser.parse_args()
    files = [Path(line) for line in arguments.config.read_text().splitlines() if line]
    settings = [
        load(EdgeSettings, file=file, environment=os.environ, flags=()).settings for file in files
    ]
    configure_logs(settings[0].log, tier="edge", site="fleet", region=settings[0].region)
    return run_service(lambda stop: serve_all(settings, stop), parent_pid=arguments.parent_pid)


if __name__ == "__main__":
    sys.exit(main())
