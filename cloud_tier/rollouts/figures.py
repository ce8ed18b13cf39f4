"""The figures that gates ask for, from what devices have counted.

Rules of this file:
  * a device that changed is counted with what it served before, and with the new version after;
    one that did not change with whatever it served;
  * audits are few: what they say is a metric only where there are events enough to judge it, which
    the test conditions on anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloud_tier.rollouts.committing import Kept
from cloud_tier.rollouts.register import Register, Sums
from runtime.core.before_after import Counts
from runtime.core.gate import Metric
from runtime.core.rollout_events import Figures, Measure, ShadowFigures
from runtime.core.rollout_states import Execution

# Name, what of it counts as an event, and among what.
METRICS = (("errors", "failed"), ("escalations", "escalated"), ("slow answers", "slow"))
DISAGREEMENT = "disagreement"


async def figures_of(kept: Kept, measure: Measure, register: Register) -> Figures:
    """What was counted for a look."""
    new = kept.digests
    before = (measure.before_from_s, measure.before_to_s)
    after = (measure.after_from_s, measure.after_to_s)
    treated = (
        await register.counted(measure.treated, *before, but=new),
        await register.counted(measure.treated, *after, only=new),
    )
    control = (
        await register.counted(measure.control, *before),
        await register.counted(measure.control, *after),
    )
    metrics = [
        Metric(
            name,
            _counts(measure.treated, *treated, "requests", events),
            _counts(measure.control, *control, "requests", events),
        )
        for name, events in METRICS
    ]
    audited = _counts(measure.treated, *treated, "audited", "audited_wrong")
    wrong = sum(one.events_before + one.events_after for one in audited)
    if wrong >= kept.rollout.settings.gate.min_events:
        others = _counts(measure.control, *control, "audited", "audited_wrong")
        metrics.append(Metric(DISAGREEMENT, audited, others))
    return Figures(measure.wave, measure.look, tuple(metrics))


async def shadow_figures_of(kept: Kept, now_s: float, register: Register) -> ShadowFigures | None:
    """What devices in shadow have compared since they are; None where nothing was."""
    rollout = kept.rollout
    inside = [one for one in rollout.devices.values() if one.state is Execution.SHADOW]
    requests = disagreements = 0
    for one in inside:
        # Whichever of the two releases it is counted for, and not for both.
        # It cannot have run there before, so that the bucket in which it began counts as a whole.
        from_s = one.since_s - register.bucket_s
        found = await register.counted((one.id,), from_s, now_s + 1, only=kept.digests)
        if not any(sums.shadowed for sums in found.values()):
            found = await register.counted((one.id,), one.since_s, now_s + 1, but=kept.digests)
        requests += sum(sums.shadowed for sums in found.values())
        disagreements += sum(sums.disagreed for sums in found.values())
    return ShadowFigures(requests, disagreements) if requests else None


def _counts(
    devices: Sequence[str],
    before: Mapping[str, Sums],
    after: Mapping[str, Sums],
    whole: str,
    part: str,
) -> tuple[Counts, ...]:
    return tuple(
        Counts(
            one,
            getattr(before.get(one, Sums()), whole),
            getattr(before.get(one, Sums()), part),
            getattr(after.get(one, Sums()), whole),
            getattr(after.get(one, Sums()), part),
        )
        for one in devices
    )
