"""What staged rollouts catch, and what they stop for nothing: simulated fleets, real controller.

Devices differ: error rates are drawn from a gamma distribution of mean 1 % and coefficient of
variation 1.8. Errors come in bursts: every five minutes each device's rate is multiplied by a gamma
draw of mean 1 and variance ``--burst``. Every device answers 60 requests a minute. All rollouts go
through ``runtime.core.rollout.step`` and ``runtime.core.gate``; nobody is there to be asked.

    python benchmarks/rollout_gate.py --json
    python benchmarks/rollout_gate.py --fleet 30
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from runtime.core.before_after import Counts
from runtime.core.cohorts import Device
from runtime.core.gate import Metric
from runtime.core.rollout import conflicts, step
from runtime.core.rollout_events import (
    Actor,
    AnyEvent,
    Ask,
    AskOperator,
    Assign,
    Beat,
    Command,
    Figures,
    Heartbeats,
    Measure,
    Report,
    Role,
    RollBack,
    Start,
)
from runtime.core.rollout_settings import RolloutSettings
from runtime.core.rollout_states import ACTIVE, STAGES, Execution, Phase, Rollout

BLOCK_S = 300.0
REQUESTS = 300
BEGIN_S = 1_800_000_000.0
ERROR_RATE, VARIATION = 0.01, 1.8
OLD, NEW = "sha256-old", "sha256-new"
OPERATOR = Actor(Role.OPERATOR, "benchmark")
REGIONS = ("eu-north", "eu-south", "us-east")

Floats = npt.NDArray[np.float64]


class Traffic:
    """Errors of every device in every block, under either version; made as far as is asked for."""

    def __init__(
        self, rng: np.random.Generator, num: int, *, times: float, burst: float, swing: float
    ) -> None:
        shape = 1 / VARIATION**2
        self._rng, self._times, self._burst, self._swing = rng, times, burst, swing
        self._rates = rng.gamma(shape, ERROR_RATE / shape, (num, 1))
        self._errors = {version: np.zeros((num, 1), np.int64) for version in (OLD, NEW)}

    def errors(self, device: int, version: str, first: int, end: int) -> int:
        """Errors in the blocks from ``first`` to before ``end``."""
        while self._errors[OLD].shape[1] <= end:
            self._more()
        row = self._errors[version][device]
        return int(row[end] - row[first])

    def _more(self, num: int = 288) -> None:
        start = self._errors[OLD].shape[1] - 1
        rates = np.repeat(self._rates, num, axis=1)
        # The same for all devices: what the time of day does.
        rates = rates * (1 + self._swing * np.sin((start + np.arange(num)) * 2 * np.pi / 288))
        if self._burst:
            rates *= self._rng.gamma(1 / self._burst, self._burst, rates.shape)
        for version, times in ((OLD, 1.0), (NEW, self._times)):
            new = self._rng.binomial(REQUESTS, np.minimum(times * rates, 1.0))
            before = self._errors[version]
            self._errors[version] = np.hstack([before, before[:, -1:] + new.cumsum(axis=1)])


@dataclass
class Simulation:
    """One rollout; devices do at once what they are told, and confirm a block later."""

    traffic: Traffic
    devices: tuple[Device, ...]
    rollout: Rollout
    baseline: int
    block: int = 0
    serving: dict[str, str] = field(default_factory=dict)
    seqs: dict[str, int] = field(default_factory=dict)
    trials: dict[str, int] = field(default_factory=dict)
    ran: dict[str, int] = field(default_factory=dict)
    waves: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    stopped_block: int | None = None
    is_held: bool = False

    def __post_init__(self) -> None:
        self.block = self.baseline
        self.index = {device.id: place for place, device in enumerate(self.devices)}
        self.serving = {device.id: OLD for device in self.devices}
        self.seqs = {device.id: 0 for device in self.devices}

    @property
    def now_s(self) -> float:
        """Unix time."""
        return BEGIN_S + BLOCK_S * self.block

    def run(self) -> Simulation:
        """Until it has ended, or waits for an operator."""
        self._tell(Ask(Command.APPROVE, OPERATOR, "benchmark"))
        self._tell(Start(OPERATOR, self.devices))
        while self.rollout.phase in ACTIVE and not self.is_held:
            beats = [Beat(one, digest, self.seqs[one]) for one, digest in self.serving.items()]
            self._tell(Heartbeats(tuple(beats)))
            for device, seq in self.trials.items():
                self._tell(Report(device, seq, Execution.CONFIRMED, self.serving[device]))
            self.trials.clear()
            self._tell(conflicts(self.rollout, ()))
            self.block += 1
        return self

    def _tell(self, event: AnyEvent) -> None:
        events = deque([event])
        while events:
            self.rollout, actions = step(self.rollout, events.popleft(), self.now_s)
            if self.stopped_block is None and self.rollout.phase not in (
                *STAGES,
                Phase.DRAFT,
                Phase.APPROVED,
                Phase.DONE,
            ):
                self.stopped_block = self.block
            for action in actions:
                if isinstance(action, Assign):
                    events.append(self._start_trial(action))
                elif isinstance(action, RollBack):
                    self.serving[action.device] = action.to
                    self.seqs[action.device] = action.seq
                elif isinstance(action, Measure):
                    events.append(self._count(action))
                elif isinstance(action, AskOperator):
                    self.is_held = True
                    self.said.append(action.why)

    def _start_trial(self, told: Assign) -> Report:
        self.serving[told.device] = told.target
        self.seqs[told.device] = self.trials[told.device] = told.seq
        self.ran.setdefault(told.device, self.block)
        if told.stage not in self.waves:
            self.waves.append(told.stage)
        return Report(told.device, told.seq, Execution.TRIAL, told.target)

    def _count(self, wanted: Measure) -> Figures:
        before = self._blocks(wanted.before_from_s), self._blocks(wanted.before_to_s)
        after = self._blocks(wanted.after_from_s), self._blocks(wanted.after_to_s)
        treated = tuple(self._of(one, OLD, before, after) for one in wanted.treated)
        # Who does not change serves one version in both windows.
        control = tuple(self._of(one, self.serving[one], before, after) for one in wanted.control)
        return Figures(wanted.wave, wanted.look, (Metric("errors", treated, control),))

    def _blocks(self, at_s: float) -> int:
        return round((at_s - BEGIN_S) / BLOCK_S)

    def _of(
        self, device: str, version: str, before: tuple[int, int], after: tuple[int, int]
    ) -> Counts:
        place = self.index[device]
        return Counts(
            device,
            REQUESTS * (before[1] - before[0]),
            self.traffic.errors(place, version, *before),
            REQUESTS * (after[1] - after[0]),
            self.traffic.errors(place, self.serving[device], *after),
        )


def simulate(seed: int, args: argparse.Namespace, times: float) -> Simulation:
    """One rollout of a model with ``times`` the errors of the one before."""
    num = args.fleet or args.devices
    devices = tuple(
        Device(f"device-{place:04}", REGIONS[place % len(REGIONS)], "pi5") for place in range(num)
    )
    settings = RolloutSettings(shadow=None)
    baseline = int(settings.baseline_s / BLOCK_S)
    rng = np.random.default_rng([args.seed, seed, round(1000 * times)])
    traffic = Traffic(rng, num, times=times, burst=args.burst, swing=args.swing)
    name = f"rollout-{args.seed}-{seed}-{times:g}"
    rollout = Rollout(name, "fashion", NEW, "fashion", settings)
    return Simulation(traffic, devices, rollout, baseline).run()


def compare(args: argparse.Namespace) -> dict[str, object]:
    """Many rollouts of a model as good as the one before, and of worse ones."""
    began_s = time.process_time()
    good = [simulate(seed, args, 1.0) for seed in range(args.rollouts)]
    bad = [simulate(seed, args, 2.0) for seed in range(args.rollouts)]
    worst = [simulate(seed, args, 5.0) for seed in range(args.rollouts // 4)]
    return {
        "false_abort_rate": share(good, "stopped"),
        "detection_rate_2x": share(bad, "stopped"),
        "blast_radius_median": statistics.median(len(one.ran) for one in bad),
        "blast_radius_p90": float(np.quantile([len(one.ran) for one in bad], 0.9)),
        "minutes_to_detect_median": minutes_to_detect(bad),
        "finished_rate_1x": share(good, "done"),
        "held_rate_1x": share(good, "held"),
        "hours_to_finish_median": statistics.median(
            (one.block - one.baseline) * BLOCK_S / 3600 for one in good
        ),
        "promoted_rate_2x": share(bad, "done"),
        "held_rate_2x": share(bad, "held"),
        "detection_rate_5x": share(worst, "stopped"),
        "blast_radius_median_5x": statistics.median(len(one.ran) for one in worst),
        "minutes_to_detect_median_5x": minutes_to_detect(worst),
        "devices": args.devices,
        "rollouts": args.rollouts,
        "cpu_s": round(time.process_time() - began_s, 1),
    }


def ended(one: Simulation) -> str:
    """How a rollout ended."""
    if one.stopped_block is not None:
        return "stopped"
    return "done" if one.rollout.phase is Phase.DONE else "held"


def share(runs: list[Simulation], how: str) -> float:
    """How many ended like this."""
    return round(sum(ended(one) == how for one in runs) / len(runs), 4)


def minutes_to_detect(runs: list[Simulation]) -> float:
    """From the first device that ran it to the stop, the median of those that were stopped."""
    taken = [
        one.stopped_block - min(one.ran.values()) for one in runs if one.stopped_block is not None
    ]
    return BLOCK_S / 60 * statistics.median(taken) if taken else 0.0


def one_fleet(args: argparse.Namespace) -> dict[str, object]:
    """One rollout of a model with twice the errors, and what it moved."""
    run = simulate(args.seed, args, args.times)
    fetched = len(run.ran)
    regions = {device.region for device in run.devices if device.id in run.ran}
    full = int(args.model_mb * 1e6)
    return {
        "ended": run.rollout.phase.value if ended(run) != "held" else "waits for an operator",
        "stages": run.waves,
        "devices": len(run.devices),
        "devices_that_ran_it": fetched,
        "minutes_to_detect": minutes_to_detect([run]),
        "bytes_cloud_to_gateways": full * (fetched if args.no_gateway_cache else len(regions)),
        "bytes_gateways_to_devices": full * fetched,
        "bytes_to_go_back": 0,
        "devices_back": sum(digest == OLD for digest in run.serving.values()),
        "why": run.rollout.judgement.why if run.rollout.judgement else "; ".join(run.said),
    }


def main() -> None:
    """Reads the command line and prints the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rollouts", type=int, default=400)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--burst", type=float, default=1.0, help="variance of the bursts' factor")
    parser.add_argument("--swing", type=float, default=0.0, help="of all rates over a day, 0 to 1")
    parser.add_argument("--fleet", type=int, default=0, help="one rollout of so many devices")
    parser.add_argument("--times", type=float, default=2.0, help="the errors of --fleet's model")
    parser.add_argument("--model-mb", type=float, default=10.0)
    parser.add_argument("--no-gateway-cache", action="store_true")
    args = parser.parse_args()
    result = one_fleet(args) if args.fleet else compare(args)
    if args.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:28} {value}")


if __name__ == "__main__":
    main()
