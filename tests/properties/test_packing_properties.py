"""No machine is overfilled, the spread holds whatever is lost, and no heuristic beats the exact."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.adapters.exact_packing import pack_exactly
from runtime.core.placement.packing import Demand, Job, Machine, jobs_of, pack

sizes = st.integers(1, 6)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[Machine], list[Job]]:
    machines = [
        Machine(f"m{at}", draw(st.sampled_from("abc")), draw(st.integers(2, 10)),
                draw(st.integers(2, 10)))
        for at in range(draw(st.integers(1, 8)))
    ]  # fmt: skip
    demands = [
        Demand(f"d{at}", draw(st.integers(0, 3)), draw(sizes), draw(sizes), draw(st.integers(0, 2)))
        for at in range(draw(st.integers(1, 4)))
    ]
    return machines, jobs_of(demands, len({one.domain for one in machines}))


def check(machines: list[Machine], jobs: list[Job], machine_of: dict[str, tuple[int, ...]]) -> None:
    for index, one in enumerate(machines):
        here = [job.demand for job in jobs if index in machine_of[job.demand.model]]
        assert sum(demand.cpu_cores for demand in here) <= one.cpu_cores + 1e-6
        assert sum(demand.memory_bytes for demand in here) <= one.memory_bytes + 1e-6
    domains = {one.domain for one in machines}
    for job in jobs:
        at = machine_of[job.demand.model]
        assert len(set(at)) == len(at) == job.replicas
        needed = job.demand.needed
        for domain in domains if len(domains) > 1 else ():
            assert sum(machines[index].domain != domain for index in at) >= needed
        lost = min(job.demand.spare, len(at)) if needed else 0
        for gone in itertools.combinations(at, lost):
            assert len(set(at) - set(gone)) >= needed


@settings(max_examples=150, deadline=None)
@given(fleets())
def test_the_heuristic_keeps_the_rules_and_is_never_better_than_the_exact_answer(
    fleet: tuple[list[Machine], list[Job]],
) -> None:
    machines, jobs = fleet

    found, exact = pack(machines, jobs), pack_exactly(machines, jobs)

    assert exact.is_proven
    assert found == pack(machines, jobs)
    if exact.num_used is None:
        assert found.shortages
        return
    check(machines, jobs, exact.machine_of)
    assert exact.num_used >= found.least_machines
    if not found.shortages:
        check(machines, jobs, found.machine_of)
        assert found.num_used >= exact.num_used


@settings(max_examples=100, deadline=None)
@given(fleets())
def test_what_is_named_as_short_beyond_doubt_rules_out_any_packing(
    fleet: tuple[list[Machine], list[Job]],
) -> None:
    machines, jobs = fleet
    found = pack(machines, jobs)

    is_certain = any("first fit" not in str(short) for short in found.shortages)

    if is_certain:
        assert pack_exactly(machines, jobs).num_used is None
    for short in found.shortages:
        assert short.missing > 0
