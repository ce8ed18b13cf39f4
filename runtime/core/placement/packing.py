"""Packs replicas of models on machines, spread so that a lost domain or lost machines do no harm.

Rules of this file:
  * no machine is overfilled, in processor or memory, and has two replicas of one model;
  * of each model enough replicas are left when any one domain, or any ``spare`` machines, are lost;
  * first-fit decreasing by the scarcer resource (Garey and Johnson), used machines first, then the
    domain with the fewest replicas of the model; then as few machines as will do when all are
    filled alike, as a machine takes one replica of a model: deterministic, quick on a gateway;
  * where it finds nothing, what is short is named; only an exact solver can say "never".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from runtime.core.placement.curves import Floats
from runtime.errors import SettingsError

MAX_MACHINES = 20_000
MAX_REPLICAS = 20_000
_SLACK = 1e-9
Rule = Literal["dense", "balanced", "level"]
_FIRST: tuple[Rule, ...] = ("dense", "balanced")


class Machine(msgspec.Struct, frozen=True):
    """One machine and its failure domain."""

    name: str
    domain: str
    cpu_cores: float
    memory_bytes: float


class Demand(msgspec.Struct, frozen=True):
    """A model's replicas: ``needed`` serve the load, and ``spare`` machines of it may be lost."""

    model: str
    needed: int
    cpu_cores: float
    memory_bytes: float
    spare: int = 0


class Short(msgspec.Struct, frozen=True):
    """What there is too little of, and how much is missing."""

    what: str
    needed: float
    available: float

    @property
    def missing(self) -> float:
        """The least that would have to be added."""
        return self.needed - self.available

    def __str__(self) -> str:
        """In words."""
        return (
            f"{self.what}: {self.needed:.6g} needed, {self.available:.6g} there, "
            f"{self.missing:.6g} missing"
        )


@dataclass(frozen=True, slots=True)
class Job:
    """A demand with how many replicas it takes, and how many of them one domain may have."""

    demand: Demand
    replicas: int
    most_per_domain: int


@dataclass(frozen=True, slots=True)
class Packing:
    """``machine_of`` has the machines' indices by model; ``shortages`` where nothing was found."""

    machine_of: dict[str, tuple[int, ...]]
    shortages: tuple[Short, ...]
    least_machines: int

    @property
    def num_used(self) -> int:
        """Machines with at least one replica."""
        return len({index for found in self.machine_of.values() for index in found})


def check_packing(machines: Sequence[Machine], demands: Sequence[Demand]) -> None:
    """Refuses what cannot be packed by any means.

    Raises:
        SettingsError: nothing there, too much of it, a name twice, or a size that is none.
    """
    for what, names, most in (
        ("machines", [one.name for one in machines], MAX_MACHINES),
        ("models", [one.model for one in demands], MAX_REPLICAS),
    ):
        if not 1 <= len(names) <= most:
            raise SettingsError(f"{len(names)} {what}; 1 to {most} can be packed")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise SettingsError(f"{what}: {twice!r} is there twice; give each a name of its own")
    sizes = [(one.name, one.cpu_cores, one.memory_bytes) for one in machines]
    for name, cores, memory in (*sizes, *((d.model, d.cpu_cores, d.memory_bytes) for d in demands)):
        if not (0 < cores < math.inf and 0 < memory < math.inf):
            raise SettingsError(f"{name}: cores and bytes of memory must be finite and above 0")
    for demand in demands:
        if min(demand.needed, demand.spare) < 0:
            raise SettingsError(f"{demand.model}: replicas cannot be fewer than 0")


def jobs_of(demands: Sequence[Demand], num_domains: int) -> list[Job]:
    """How many replicas each model takes: the fewest that survive a domain or ``spare`` machines.

    With one domain its loss cannot be survived, and only machines count.
    """
    found = []
    for demand in demands:
        replicas = demand.needed + demand.spare if demand.needed else 0
        if demand.needed and num_domains > 1:
            # n replicas over d domains leave n - ceil(n / d) when the fullest is lost.
            replicas = max(replicas, demand.needed + -(-demand.needed // (num_domains - 1)))
        most = replicas - demand.needed if num_domains > 1 else replicas
        found.append(Job(demand, replicas, most))
    return found


def pack(machines: Sequence[Machine], jobs: Sequence[Job]) -> Packing:
    """Packs all jobs: used machines first, balanced domains first, or levelled; the best of these.

    Raises:
        SettingsError: more replicas than can be packed in bounded time.
    """
    total = sum(job.replicas for job in jobs)
    if total > MAX_REPLICAS:
        raise SettingsError(f"{total} replicas; at most {MAX_REPLICAS} can be packed: larger ones?")
    least = least_machines(machines, jobs)
    tries = [_first_fit(machines, jobs, rule) for rule in _FIRST]
    done = [found for found, missing in tries if not missing]
    best = min(done, key=_num_used, default=None)
    best = _level(machines, jobs, least, best)
    if best is not None:
        return Packing(best, (), least)
    found, missing = tries[0]
    return Packing(found, tuple([*shortages(machines, jobs)] or [missing[0]]), least)


MachineOf = dict[str, tuple[int, ...]]


def _num_used(found: MachineOf) -> int:
    return len({at for all_at in found.values() for at in all_at})


def _level(
    machines: Sequence[Machine], jobs: Sequence[Job], least: int, best: MachineOf | None
) -> MachineOf | None:
    """The same on fewer machines, each as full as the others; bisects how many."""
    seen: dict[str, int] = {}
    turn = []
    for index, one in enumerate(machines):
        seen[one.domain] = seen.get(one.domain, 0) + 1
        # The largest first, and domains in turn.
        turn.append((-one.cpu_cores, -one.memory_bytes, seen[one.domain], index))
    order = [entry[-1] for entry in sorted(turn)]
    low, high = least, len(machines) if best is None else _num_used(best)
    while low < high:
        middle = (low + high) // 2
        chosen = order[:middle]
        found, missing = _first_fit([machines[at] for at in chosen], jobs, "level")
        if missing:
            low = middle + 1
        else:
            best = {name: tuple(chosen[at] for at in all_at) for name, all_at in found.items()}
            high = _num_used(best)
    return best


def least_machines(machines: Sequence[Machine], jobs: Sequence[Job]) -> int:
    """A lower bound: by the largest machines' processor and memory, and replicas of one model."""
    bound = max((job.replicas for job in jobs), default=0)
    for field in ("cpu_cores", "memory_bytes"):
        needed = math.fsum(getattr(job.demand, field) * job.replicas for job in jobs)
        room = np.cumsum(np.sort([getattr(one, field) for one in machines])[::-1])
        bound = max(bound, int(np.searchsorted(room, needed * (1 - _SLACK))) + 1 if needed else 0)
    return bound


def shortages(machines: Sequence[Machine], jobs: Sequence[Job]) -> list[Short]:
    """What rules out any packing, as far as sums and counts can tell."""
    found = []
    for what, field in (("processor cores", "cpu_cores"), ("bytes of memory", "memory_bytes")):
        needed = math.fsum(getattr(job.demand, field) * job.replicas for job in jobs)
        available = math.fsum(getattr(one, field) for one in machines)
        if needed > available * (1 + _SLACK):
            found.append(Short(what, needed, available))
    for job in jobs:
        by_domain: dict[str, int] = {}
        for one in machines:
            fits = _fits(one.cpu_cores, job.demand.cpu_cores) and _fits(
                one.memory_bytes, job.demand.memory_bytes
            )
            by_domain[one.domain] = by_domain.get(one.domain, 0) + fits
        able = sum(by_domain.values())
        if able < job.replicas:
            what = f"machines that one replica of {job.demand.model} fits on"
            found.append(Short(what, job.replicas, able))
            continue
        spread = sum(min(count, job.most_per_domain) for count in by_domain.values())
        if spread < job.replicas:
            scarce = min(by_domain, key=lambda name: (by_domain[name], name))
            what = (
                f"replicas of {job.demand.model} that the spread over domains allows (fewest "
                f"machines: {scarce})"
            )
            found.append(Short(what, job.replicas, spread))
    return found


def _fits(room: float, size: float) -> bool:
    return size <= room * (1 + _SLACK)


def _first_fit(
    machines: Sequence[Machine], jobs: Sequence[Job], rule: Rule
) -> tuple[MachineOf, list[Short]]:
    cores = np.asarray([one.cpu_cores for one in machines])
    memory = np.asarray([one.memory_bytes for one in machines])
    names = sorted({one.domain for one in machines})
    domain = np.asarray([names.index(one.domain) for one in machines])
    free_cores, free_memory = cores.copy(), memory.copy()
    used = np.zeros(len(machines), np.bool_)
    order = sorted(
        jobs,
        key=lambda job: (
            -max(
                job.demand.cpu_cores / float(cores.mean()),
                job.demand.memory_bytes / float(memory.mean()),
            ),
            job.demand.model,
        ),
    )
    found: MachineOf = {}
    missing = []
    for job in order:
        chosen = _place_job(job, (free_cores, free_memory), domain, used, rule)
        found[job.demand.model] = tuple(chosen)
        if len(chosen) < job.replicas:
            what = f"room for replicas of {job.demand.model} (first fit; exact may find more)"
            missing.append(Short(what, job.replicas, len(chosen)))
    return found, missing


def _place_job(
    job: Job,
    free: tuple[Floats, Floats],
    domain: np.ndarray[tuple[int], np.dtype[np.int64]],
    used: np.ndarray[tuple[int], np.dtype[np.bool_]],
    rule: Rule,
) -> list[int]:
    free_cores, free_memory = free
    demand = job.demand
    able = (free_cores * (1 + _SLACK) >= demand.cpu_cores) & (
        free_memory * (1 + _SLACK) >= demand.memory_bytes
    )
    in_domain = np.zeros(int(domain.max()) + 1, np.int64)
    chosen: list[int] = []
    for _ in range(job.replicas):
        open_now = np.flatnonzero(able & (in_domain < job.most_per_domain)[domain])
        if not len(open_now):
            break
        fullness = in_domain[domain[open_now]]
        is_new = ~used[open_now]
        keys = {
            "dense": (open_now, fullness, is_new),
            "balanced": (open_now, is_new, fullness),
            "level": (open_now, -free_memory[open_now], -free_cores[open_now], fullness),
        }[rule]
        at = int(open_now[np.lexsort(keys)[0]])
        chosen.append(at)
        able[at] = False
        used[at] = True
        in_domain[domain[at]] += 1
        free_cores[at] -= demand.cpu_cores
        free_memory[at] -= demand.memory_bytes
    return chosen
