"""TCP ports that nobody listens on, and that nobody is given before they are used."""

from __future__ import annotations

import itertools
import os
import socket

# Below those that systems give to connections (from 32768): one of these could take the port
# meanwhile, or connect to itself where nobody was to be.
_FIRST, _PER_WORKER, _WORKERS = 12_000, 1_000, 20
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
# Two runs of the tests on one machine begin at different ones.
_offsets = itertools.count(os.getpid() * 37)


def free_port() -> int:
    """Another one at each call, of this worker's own."""
    for _ in range(_PER_WORKER):
        port = _FIRST + _worker * _PER_WORKER + next(_offsets) % _PER_WORKER
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"all ports from {_FIRST} on are taken")
