"""What became of a download: each file, where it came from, and all that went wrong on the way."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from runtime.core.mirrors import Trouble
from runtime.errors import UnavailableError
from runtime.manifest import ModelFile

MAX_SETBACKS = 32


class How(enum.StrEnum):
    """How a file came to be here, or that it is not."""

    HERE = "here"
    DELTA = "delta"
    FULL = "full"
    FAILED = "failed"
    NOT_TRIED = "not_tried"


@dataclass(frozen=True, slots=True)
class Setback:
    """An attempt that failed."""

    mirror: str
    trouble: Trouble
    text: str


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file; ``wire_bytes`` count bodies of all attempts, ``setbacks`` the latest failures."""

    file: ModelFile
    how: How
    mirror: str = ""
    wire_bytes: int = 0
    attempts: int = 0
    setbacks: tuple[Setback, ...] = ()


@dataclass(frozen=True, slots=True)
class DownloadReport:
    """All files of a download, in the order in which they were asked for."""

    files: tuple[FileReport, ...]

    @property
    def is_complete(self) -> bool:
        """Whether all files are here, verified."""
        return all(one.how not in {How.FAILED, How.NOT_TRIED} for one in self.files)

    @property
    def wire_bytes(self) -> int:
        """Bodies of all attempts together."""
        return sum(one.wire_bytes for one in self.files)

    def raise_for_failure(self) -> None:
        """Says nothing where all is here.

        Raises:
            UnavailableError: a file could not be had from any mirror; the text has the reasons.
        """
        for one in self.files:
            if one.how is How.FAILED:
                told = dict.fromkeys(f"{it.mirror}: {it.trouble.value}" for it in one.setbacks)
                raise UnavailableError(
                    f"{one.file.sha256} could not be had after {one.attempts} attempts "
                    f"({'; '.join(told)}); what has arrived is kept, try again later"
                )
