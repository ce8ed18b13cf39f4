"""How small deltas of model files are, beside bsdiff4, a zstd patch, and the whole file.

For every pair of files of ``delta_pairs``: the delta's share of the new file's size, and the CPU
seconds to make and to apply it. Every delta is applied, and what comes out is compared.

    python benchmarks/delta.py --json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Final

import zstandard
from delta_pairs import pairs

from runtime.delta import apply_delta, make_delta

LEVEL: Final = 19
# Without tables of its size zstd does not find what is in a large dictionary.
TABLE_LOG: Final = 24
GOAL: Final = 0.03


@dataclass(frozen=True, slots=True)
class Tool:
    """Makes a delta of (old, new), and applies one to (old, delta, new); new is for its digest."""

    make: Callable[[bytes, bytes], bytes]
    apply: Callable[[bytes, bytes, bytes], bytes]


@dataclass(frozen=True, slots=True)
class Figures:
    """What a tool needs for a pair."""

    share: float
    make_s: float
    apply_s: float


def bsdiff4() -> ModuleType:
    """The library, or a message that says how to get it."""
    try:
        import bsdiff4  # noqa: PLC0415 - an extra that only this program needs
    except ImportError:
        sys.exit("bsdiff4 is missing: pip install 'tierwise[bench]'")
    return bsdiff4  # type: ignore[no-any-return]


def tools(level: int) -> dict[str, Tool]:
    """All that are compared, by the name of their column."""
    other = bsdiff4()

    def ours(old: bytes, delta: bytes, new: bytes) -> bytes:
        digest = hashlib.sha256(new).hexdigest()
        return apply_delta(old, delta, sha256=digest, size_bytes=len(new))

    def raw(old: bytes) -> zstandard.ZstdCompressionDict:
        return zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)

    def make_patch(old: bytes, new: bytes) -> bytes:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            LEVEL, window_log=TABLE_LOG, hash_log=TABLE_LOG, chain_log=TABLE_LOG
        )
        return zstandard.ZstdCompressor(dict_data=raw(old), compression_params=parameters).compress(
            new
        )

    return {
        "ours": Tool(lambda old, new: make_delta(old, new, level=level), ours),
        "bsdiff4": Tool(other.diff, lambda old, delta, _: other.patch(old, delta)),
        "zstd_patch": Tool(
            make_patch,
            lambda old, delta, _: zstandard.ZstdDecompressor(dict_data=raw(old)).decompress(delta),
        ),
        "full": Tool(
            lambda _, new: zstandard.ZstdCompressor(level=LEVEL).compress(new),
            lambda _, delta, __: zstandard.ZstdDecompressor().decompress(delta),
        ),
    }


def measure(tool: Tool, old: bytes, new: bytes) -> Figures:
    """One pair with one tool."""
    began_s = time.process_time()
    delta = tool.make(old, new)
    made_s = time.process_time()
    made = tool.apply(old, delta, new)
    applied_s = time.process_time()
    if made != new:
        sys.exit("a delta did not make the new file")
    return Figures(len(delta) / len(new), made_s - began_s, applied_s - made_s)


def print_table(rows: dict[str, dict[str, Figures]]) -> None:
    """Shares in percent, and CPU seconds, for people."""
    names = list(next(iter(rows.values())))
    print(f"{'':29}" + "".join(f"{name:>11}" for name in names) + "   make s ours/bsdiff4  apply s")
    for pair, figures in rows.items():
        shares = "".join(f"{100 * figures[name].share:10.2f}%" for name in names)
        ours, other = figures["ours"], figures["bsdiff4"]
        times = f"{ours.make_s:13.2f} /{other.make_s:6.2f}  {ours.apply_s:7.3f}"
        print(f"{pair:29}{shares}{times}")
    behind = {
        pair: figures["ours"].share - min(one.share for one in figures.values())
        for pair, figures in rows.items()
    }
    worst = max(behind, key=lambda pair: behind[pair])
    goal = "met" if behind[worst] <= GOAL else "MISSED"
    print(
        f"largest distance to the best tool: {100 * behind[worst]:.2f} points ({worst}); "
        f"the goal of {100 * GOAL:.0f} points is {goal}"
    )


def main(level: int, *, as_json: bool) -> None:
    """Measures and prints."""
    compared = tools(level)
    rows: dict[str, dict[str, Figures]] = {}
    for pair, (old, new) in pairs():
        print(f"{pair} ...", file=sys.stderr, flush=True)
        rows[pair] = {name: measure(tool, old, new) for name, tool in compared.items()}
    if as_json:
        shares = {
            pair: {name: round(one.share, 5) for name, one in figures.items()}
            for pair, figures in rows.items()
        }
        print(json.dumps(shares))
    else:
        print_table(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--level", type=int, default=LEVEL, help="of our delta's zstd, 1 to 22")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    main(options.level, as_json=options.json)
