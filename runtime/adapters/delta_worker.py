"""A process that makes one delta: two files on standard input, the delta on standard output.

It is started as ``-m runtime.adapters.delta_worker OLD_BYTES NEW_BYTES LEVEL CPU_SECONDS``, gives
way to everything else on the machine, and ends by itself. Nothing on standard output: not
worthwhile.
"""

from __future__ import annotations

import os
import resource
import sys

from runtime.delta import is_worthwhile, make_delta

LOWEST_PRIORITY = 19


def main() -> None:
    """Reads, makes, writes."""
    old_bytes, new_bytes, level, cpu_s = map(int, sys.argv[1:])
    os.nice(LOWEST_PRIORITY)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    old, new = sys.stdin.buffer.read(old_bytes), sys.stdin.buffer.read(new_bytes)
    if (len(old), len(new)) != (old_bytes, new_bytes):
        sys.exit("the files did not arrive in whole")
    delta = make_delta(old, new, level=level)
    if is_worthwhile(len(delta), new_bytes):
        sys.stdout.buffer.write(delta)


if __name__ == "__main__":
    main()
