"""What a build is asked for; imports nothing heavy, so that a command line can."""

from __future__ import annotations

from pathlib import Path

import msgspec

# Where the Debian package dataset-fashion-mnist puts its files.
DEFAULT_DATA = Path("/usr/share/datasets/fashion-mnist")


class BuildOptions(msgspec.Struct, frozen=True):
    """What decides the result of a build.

    The order of floating-point sums, and with it the last digits, depends on the threads.
    ``epochs_scale`` and ``limit`` (of pictures of each part) are for quick trials.
    """

    seed: int = 20
    threads: int = 2
    epochs_scale: float = 1.0
    limit: int | None = None
    version: str = "1"

    @property
    def command(self) -> str:
        """The command that builds the same again."""
        parts = [f"tierwise models build fashion --seed {self.seed} --threads {self.threads}"]
        if self.epochs_scale != 1:
            parts.append(f"--epochs-scale {self.epochs_scale:g}")
        if self.limit is not None:
            parts.append(f"--limit {self.limit}")
        return " ".join(parts)


class RetrainOptions(msgspec.Struct, frozen=True):
    """What decides the result of training one tier anew; ``tier`` is ``edge`` or ``regional``."""

    tier: str = "edge"
    seed: int = 20
    threads: int = 2
    epochs_scale: float = 1.0
    limit: int | None = None
    version: str = "1"
    dataset: str = ""

    @property
    def command(self) -> str:
        """The command that trains the same again, with the same dataset."""
        parts = [
            f"tierwise retrain fashion --tier {self.tier} --dataset {self.dataset}",
            f"--seed {self.seed} --threads {self.threads}",
        ]
        if self.epochs_scale != 1:
            parts.append(f"--epochs-scale {self.epochs_scale:g}")
        if self.limit is not None:
            parts.append(f"--limit {self.limit}")
        return " ".join(parts)
