"""The form of FLEET.toml: models with the history of their load, and machines."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Annotated

import msgspec

from runtime.core.placement.failures import Failures
from runtime.core.placement.forecast import MAX_HOURS
from runtime.errors import SettingsError
from tierwise.placement.case_file import Name
from tierwise.placement.toml_file import read_toml


class FleetModelFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model and one replica of it.

    ``history`` is a CSV file beside this one with a line for each hour, oldest first:
    ``requests_per_s`` and, where it is known, ``memory_bytes`` of one replica; or the loads are
    given as ``requests_per_s_by_hour``. ``replica_memory_bytes`` is what a replica takes at least.
    """

    name: Name
    replica_requests_per_s: float
    replica_cpu_cores: float
    replica_memory_bytes: float
    history: str = ""
    requests_per_s_by_hour: tuple[float, ...] = ()


class MachinesFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Machines that are alike; ``domain`` is what fails together: a rack, a power feed, a zone."""

    name: Name
    domain: Name
    count: Annotated[int, msgspec.Meta(ge=1, le=20_000)]
    cpu_cores: float
    memory_bytes: float


class FailuresFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was observed: failures, and machines times weeks that they were watched for."""

    num_failures: float = 0.0
    num_machine_weeks: float = 0.0


class FleetFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of FLEET.toml. ``quantile`` of the load is what has to be served.

    ``max_shortage_chance``: of more machines failing in a week than there are replicas to spare.
    """

    name: Name
    models: tuple[FleetModelFile, ...]
    machines: tuple[MachinesFile, ...]
    failures: FailuresFile = FailuresFile()
    quantile: float = 0.95
    quantiles: tuple[float, ...] = (0.5, 0.9, 0.95, 0.99)
    max_shortage_chance: float = 0.01
    held_out_days: Annotated[int, msgspec.Meta(ge=0, le=366)] = 7


PARTS = (FleetModelFile, MachinesFile, FailuresFile)

EXAMPLE = """\
# A fleet for `tierwise place fleet`: what load is coming, and on which machines it is served.
name = "region-north"
quantile = 0.95               # of the load of the busiest hour of next week: this has to be served
max_shortage_chance = 0.01    # that more machines fail in a week than replicas are to spare
held_out_days = 7             # forecast again from the days before them, to see how good that is

[failures]                    # prior: Beta(1/2, 1/2)
num_failures = 3
num_machine_weeks = 400

[[models]]
name = "regional"
history = "regional.csv"      # requests_per_s[,memory_bytes] by hour, two weeks at least
replica_requests_per_s = 40
replica_cpu_cores = 2
replica_memory_bytes = 400_000_000

[[machines]]
name = "rack-a"
domain = "a"
count = 4
cpu_cores = 8
memory_bytes = 16_000_000_000

[[machines]]
name = "rack-b"
domain = "b"
count = 4
cpu_cores = 8
memory_bytes = 16_000_000_000

[[machines]]
name = "rack-c"
domain = "c"
count = 4
cpu_cores = 8
memory_bytes = 16_000_000_000
"""


class History(msgspec.Struct, frozen=True):
    """By hour; ``memory_bytes`` is empty where nobody has measured it."""

    requests_per_s: tuple[float, ...]
    memory_bytes: tuple[float, ...] = ()


def read_fleet(path: Path) -> tuple[FleetFile, dict[str, History]]:
    """The fleet with the history of every model.

    Raises:
        SettingsError: a file cannot be read or used; says which and why.
    """
    fleet = read_toml(path, FleetFile, PARTS)
    for what, names in (
        ("models", [one.name for one in fleet.models]),
        ("machines", [one.name for one in fleet.machines]),
    ):
        if not names:
            raise SettingsError(f"{path} has no {what}")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SettingsError(f"{path}: {what}: {twice[0]!r} is there twice")
    if fleet.quantile not in fleet.quantiles:
        fleet = msgspec.structs.replace(
            fleet, quantiles=tuple(sorted((*fleet.quantiles, fleet.quantile)))
        )
    Failures(fleet.failures.num_failures, fleet.failures.num_machine_weeks).check()
    histories = {}
    for one in fleet.models:
        if bool(one.history) == bool(one.requests_per_s_by_hour):
            raise SettingsError(f"{one.name}: give either history or requests_per_s_by_hour")
        rate = one.replica_requests_per_s
        if not 0 < rate < math.inf:
            raise SettingsError(f"{one.name}: replica_requests_per_s {rate:g} is not above 0")
        histories[one.name] = (
            _read_history(path.parent / one.history)
            if one.history
            else History(one.requests_per_s_by_hour)
        )
    return fleet, histories


def _read_history(path: Path) -> History:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = []
            for line in csv.reader(file):
                lines.append(line)
                if len(lines) > MAX_HOURS + 1:
                    raise SettingsError(f"{path} has more than {MAX_HOURS} hours")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"{path} cannot be read as a history: {error}") from error
    head = [name.strip() for name in lines[0]] if lines else []
    if "requests_per_s" not in head or set(head) - {"requests_per_s", "memory_bytes"}:
        raise SettingsError(
            f"{path} starts with {','.join(head)[:80]!r}; a history has the columns "
            "requests_per_s and, if measured, memory_bytes"
        )
    columns = {
        name: tuple(
            _number(line, at, f"{path}:{number}") for number, line in enumerate(lines[1:], start=2)
        )
        for at, name in enumerate(head)
    }
    return History(columns["requests_per_s"], columns.get("memory_bytes", ()))


def _number(line: list[str], at: int, where: str) -> float:
    try:
        return float(line[at])
    except (ValueError, IndexError):
        raise SettingsError(f"{where} has no number in column {at + 1}") from None
