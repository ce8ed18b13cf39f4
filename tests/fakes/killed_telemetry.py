"""Sends the same rollups to a store again and again, and says which are counted; to be killed.

    python killed_telemetry.py URL NUM

Prints a line for each batch that has been counted, and ``done`` after the last.
"""

from __future__ import annotations

import sys

from cloud_tier.telemetry.store import TelemetryStore
from fakes.telemetry import NOW_S, item, rollup, row


def main() -> None:
    url, num = sys.argv[1], int(sys.argv[2])
    with TelemetryStore(url, wall_s=lambda: NOW_S) as store:
        waiting = []
        for number in range(1, num + 1):
            said = rollup(row(1, label=str(number % 7)), first=number)
            waiting.append(store.submit(item(said, item_id=f"i{number}")))
            if len(waiting) == 32:
                for one in waiting:
                    one.result(30)
                waiting = []
                sys.stdout.write("counted\n")
                sys.stdout.flush()
        for one in waiting:
            one.result(30)
    sys.stdout.write("done\n")


if __name__ == "__main__":
    main()
