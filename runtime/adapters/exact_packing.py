"""The fewest machines, by HiGHS (extra ``place``; MIT, wheels for x86-64 and aarch64).

A binary variable for each model on each machine, and one for each machine in use. Whether the
answer is proven is told; a time limit leaves the best that was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.core.placement.packing import Job, Machine
from runtime.errors import StartError

# Beyond this the cloud, too, is better served by the heuristic and its bound.
MAX_VARIABLES = 200_000
INSTALL = "the exact answer needs the extra `place`: pip install 'tierwise[place]'"


@dataclass(frozen=True, slots=True)
class Exact:
    """``num_used`` is None where no packing exists, or none was found in time.

    ``least`` is proven: no packing uses fewer machines.
    """

    num_used: int | None
    machine_of: dict[str, tuple[int, ...]]
    is_proven: bool
    least: int


def pack_exactly(
    machines: Sequence[Machine], jobs: Sequence[Job], *, time_limit_s: float = 60.0
) -> Exact:
    """The packing with the fewest machines.

    Raises:
        StartError: HiGHS is not installed, or there are too many variables.
    """
    num = len(machines) * (len(jobs) + 1)
    if num > MAX_VARIABLES:
        raise StartError(
            f"{num} variables are too many for the exact answer ({MAX_VARIABLES} at most); the "
            "heuristic says how far from the best it may be"
        )
    try:
        import highspy  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise StartError(INSTALL) from error

    class Quiet(highspy.Highs):
        """Without the banner, which is printed when callbacks are switched on."""

        def enableCallbacks(self) -> None:  # noqa: N802 - the package's name
            self.setOptionValue("output_flag", False)
            super().enableCallbacks()  # type: ignore[no-untyped-call]

    # The package ships no types.
    solver: Any = Quiet()  # type: ignore[no-untyped-call]
    solver.setOptionValue("time_limit", time_limit_s)
    solver.setOptionValue("threads", 1)
    used, at = _model(solver, machines, jobs)
    solver.minimize(solver.qsum(used))
    status = solver.getModelStatus()
    is_proven = status in {highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kInfeasible}
    info = solver.getInfo()
    if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return Exact(None, {}, is_proven, 0)
    values = solver.getSolution().col_value
    half = 0.5
    machine_of = {
        job.demand.model: tuple(index for index, x in enumerate(row) if values[x.index] > half)
        for row, job in zip(at, jobs, strict=True)
    }
    num_used = len({index for found in machine_of.values() for index in found})
    least = num_used if is_proven else max(0, round(info.mip_dual_bound - half))
    return Exact(num_used, machine_of, is_proven, least)


def _model(
    solver: Any,  # noqa: ANN401 - the package ships no types
    machines: Sequence[Machine],
    jobs: Sequence[Job],
) -> tuple[list[Any], list[list[Any]]]:
    """Variables: which machines are in use, and for each job which of them it is on."""
    used = [solver.addBinary() for _ in machines]
    at = [[solver.addBinary() for _ in machines] for _ in jobs]
    domains = sorted({one.domain for one in machines})
    for row, job in zip(at, jobs, strict=True):
        solver.addConstr(solver.qsum(row) == job.replicas)
        for domain in domains:
            inside = [x for x, one in zip(row, machines, strict=True) if one.domain == domain]
            solver.addConstr(solver.qsum(inside) <= job.most_per_domain)
        for x, y in zip(row, used, strict=True):
            solver.addConstr(x <= y)
    last: dict[tuple[str, float, float], int] = {}
    for index, one in enumerate(machines):
        for size, room in (("cpu_cores", one.cpu_cores), ("memory_bytes", one.memory_bytes)):
            # In parts of the machine: bytes and cores differ by nine powers of ten.
            parts = [
                (getattr(job.demand, size) / room) * row[index]
                for row, job in zip(at, jobs, strict=True)
            ]
            solver.addConstr(solver.qsum(parts) <= used[index])
        kind = (one.domain, one.cpu_cores, one.memory_bytes)
        if kind in last:
            # Of machines that are alike the first are used: fewer answers to tell apart.
            solver.addConstr(used[index] <= used[last[kind]])
        last[kind] = index
    return used, at
