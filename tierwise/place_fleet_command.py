"""What ``tierwise place fleet`` does."""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from runtime.core.placement.failures import Failures, spare_machines
from runtime.core.placement.forecast import Forecast, check_history, forecast
from runtime.core.placement.packing import (
    Demand,
    Job,
    Machine,
    Packing,
    check_packing,
    jobs_of,
    pack,
)
from runtime.errors import SettingsError, StartError
from tierwise.cli.output import note, say, say_json, say_table
from tierwise.cli.progress import progress_bar
from tierwise.placement.fleet_file import EXAMPLE, FleetFile, History, read_fleet
from tierwise.placement.telling import finite


def run_fleet(arguments: argparse.Namespace) -> int:
    """Forecasts, packs and tells; 1 where the machines are too few."""
    if arguments.example:
        say(EXAMPLE.rstrip("\n"))
        return 0
    if arguments.fleet is None:
        raise SettingsError("place which fleet? give a FLEET.toml; --example prints one")
    fleet, histories = read_fleet(arguments.fleet)
    forecasts: dict[str, Forecast] = {}
    with progress_bar("forecast") as show:
        for number, (name, history) in enumerate(histories.items()):
            show(number, len(histories), f"forecast: {name}")
            check_history(history.requests_per_s, name)
            forecasts[name] = forecast(
                history.requests_per_s, fleet.quantiles, num_held_days=fleet.held_out_days
            )
        show(0, 0, "pack")
        machines = _machines(fleet)
        failures = Failures(fleet.failures.num_failures, fleet.failures.num_machine_weeks)
        demands = _demands(fleet, histories, forecasts, failures)
        check_packing(machines, demands)
        jobs = jobs_of(demands, len({one.domain for one in machines}))
        packing = pack(machines, jobs)
        exact = _exact(arguments, machines, jobs) if arguments.exact else None
    found: dict[str, Any] = {
        "fleet": fleet.name,
        "quantile": fleet.quantile,
        "failure_chance": failures.chance,
        "num_machines": len(machines),
        "models": [
            _model_facts(job, fleet, forecasts[job.demand.model], packing, machines) for job in jobs
        ],
        "is_possible": not packing.shortages,
        "short": [msgspec.to_builtins(one) | {"missing": one.missing} for one in packing.shortages],
        "num_used": packing.num_used,
        "least_machines": packing.least_machines,
        "exact": exact,
    }
    if arguments.json:
        say_json(finite(found))
    else:
        _tell(found, packing)
    is_there = not packing.shortages or bool(exact and exact["num_used"] is not None)
    return 0 if is_there else 1


def _machines(fleet: FleetFile) -> list[Machine]:
    return [
        Machine(f"{one.name}-{number}", one.domain, one.cpu_cores, one.memory_bytes)
        for one in fleet.machines
        for number in range(1, one.count + 1)
    ]


def _demands(
    fleet: FleetFile,
    histories: dict[str, History],
    forecasts: dict[str, Forecast],
    failures: Failures,
) -> list[Demand]:
    # Of any model at all, so each has its part of the chance.
    chance = fleet.max_shortage_chance / len(fleet.models)
    found = []
    for one in fleet.models:
        memory = one.replica_memory_bytes
        measured = histories[one.name].memory_bytes
        if measured:
            check_history(measured, f"memory_bytes of {one.name}")
            memory = max(memory, forecast(measured, [fleet.quantile], num_held_days=0).peak(
                fleet.quantile))  # fmt: skip
        peak = forecasts[one.name].peak(fleet.quantile)
        needed = math.ceil(peak / one.replica_requests_per_s - 1e-9)
        spare = spare_machines(failures, needed, chance)
        found.append(Demand(one.name, needed, one.replica_cpu_cores, memory, spare))
    return found


def _exact(
    arguments: argparse.Namespace, machines: Sequence[Machine], jobs: Sequence[Job]
) -> dict[str, Any] | None:
    from runtime.adapters.exact_packing import pack_exactly  # noqa: PLC0415 - an extra

    try:
        exact = pack_exactly(machines, jobs, time_limit_s=arguments.seconds)
    except StartError as error:
        if arguments.exact == "yes":
            raise
        note(f"note: {error}")
        return None
    return {
        "num_used": exact.num_used,
        "is_proven": exact.is_proven,
        "least": exact.least,
        "machines": {
            name: [machines[at].name for at in found] for name, found in exact.machine_of.items()
        },
    }


def _model_facts(
    job: Job, fleet: FleetFile, told: Forecast, packing: Packing, machines: Sequence[Machine]
) -> dict[str, Any]:
    name = job.demand.model
    at = packing.machine_of.get(name, ())
    by_domain = {
        domain: len(list(group))
        for domain, group in itertools.groupby(sorted(machines[index].domain for index in at))
    }
    return {
        "name": name,
        "peak_requests_per_s": told.peak(fleet.quantile),
        "memory_bytes": job.demand.memory_bytes,
        "needed": job.demand.needed,
        "spare": job.demand.spare,
        "replicas": job.replicas,
        "by_domain": by_domain,
        "machines": [machines[index].name for index in at],
        "forecast": msgspec.to_builtins(told.errors),
    }


def _tell(found: dict[str, Any], packing: Packing) -> None:
    say(
        f"{found['fleet']}: {found['num_machines']} machines; one fails in a week with a chance of "
        f"{found['failure_chance']:.2%}"
    )
    say_table(
        (
            "MODEL",
            f"P{found['quantile'] * 100:g} REQUESTS/S",
            "NEEDED",
            "MAY FAIL",
            "REPLICAS",
            "BY DOMAIN",
        ),
        [
            (
                one["name"],
                f"{one['peak_requests_per_s']:.1f}",
                str(one["needed"]),
                str(one["spare"]),
                str(one["replicas"]),
                " ".join(f"{domain}:{count}" for domain, count in one["by_domain"].items()),
            )
            for one in found["models"]
        ],
    )
    say_table(
        ("MODEL", "QUANTILE", "COVERED", "PINBALL LOSS", "HOURS HELD OUT"),
        [
            (
                model["name"],
                f"{one['quantile']:g}",
                "-" if not one["num_hours"] else f"{one['coverage_share']:.1%}",
                "-" if not one["num_hours"] else f"{one['pinball']:.4g}",
                str(one["num_hours"]),
            )
            for model in found["models"]
            for one in model["forecast"]
        ],
        right=4,
    )
    if packing.shortages:
        for short in packing.shortages:
            say(f"too little: {short}")
    else:
        say(f"packed on {found['num_used']} machines; at least {found['least_machines']} by sums")
    _tell_exact(found["exact"], packing)


def _tell_exact(exact: dict[str, Any] | None, packing: Packing) -> None:
    if exact is None:
        return
    how = "proven" if exact["is_proven"] else f"not proven; at least {exact['least']}"
    if exact["num_used"] is None:
        say(f"exact: no packing ({'proven' if exact['is_proven'] else 'none in time'})")
    elif packing.shortages:
        say(f"exact: {exact['num_used']} machines ({how}); the heuristic found none")
    else:
        gap = packing.num_used - exact["num_used"]
        say(f"exact: {exact['num_used']} machines ({how}); the heuristic uses {gap} more")
