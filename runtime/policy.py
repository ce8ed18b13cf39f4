"""The policy file: fitted gears, what they promise, and what they were fitted on.

Rules of this file:
  * a policy is JSON, the same bytes for the same policy, so that its digest names it and a
    signature can cover it; unknown fields are skipped, new fields have defaults;
  * what is loaded has been checked as a whole: no table is ragged, no number is not finite, and
    no gear speaks of a tier that the policy does not name;
  * costs are in prices of the top tier: 1.0 is what asking it directly costs.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec

from runtime.averages import Average
from runtime.errors import PolicyError
from runtime.messages import Guarantee
from runtime.policy_checks import check_policy
from runtime.policy_rules import Resorts, Rules

MAX_POLICY_BYTES = 16 << 20
MIN_TIERS = 2
# Between the name of a gear and the number of one of its safer steps.
SAFER = ".safer-"

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z", max_length=128)]
Score = Literal["probability", "margin", "entropy", "energy", "agreement"]
# A number for every row and bin.
Cells = tuple[tuple[float, ...], ...]


class Choice(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that a tier can do other than give its own answer.

    Either ask ``to`` (several: all at once, each further tier's answer preferred), or give the
    answer of the tier below named ``answer``. ``gain`` is the chance of a right final answer less
    that of an own answer that is right; ``cost`` what is expected to be paid from here on.
    ``chance`` is the share of replies in time that both already include.
    """

    gain: Cells
    cost: Cells
    to: tuple[Name, ...] = ()
    answer: str = ""
    chance: Share = 1.0


class DecisionTable(msgspec.Struct, frozen=True, omit_defaults=True):
    """What to do at the last of ``tiers`` after all of them have answered.

    ``rows[label]`` times the number of patterns, plus the pattern, is the row of a decision; bit
    ``i`` of the pattern says that ``tiers[i]`` chose the same label. In a row, ``edges`` (rising)
    part the scores into bins; a score on an edge belongs to the bin above. The row after the last
    pattern of the last label is for answers without a single label (a batch).
    """

    tiers: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=6)]
    rows: Annotated[tuple[Count, ...], msgspec.Meta(min_length=2)]
    edges: Cells
    choices: tuple[Choice, ...]
    score: Score = "probability"

    @property
    def num_patterns(self) -> int:
        """Ways in which the tiers below can agree and disagree."""
        return 1 << (len(self.tiers) - 1)


class Review(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person as the last resort: what asking one costs and wins, above the top tier.

    ``price`` is in prices of the top tier, ``latency_ms`` what is promised, ``accuracy`` that of
    people. ``chance`` is that of a right answer of the top tier, by label and score as in a
    ``DecisionTable`` without patterns.
    """

    price: Annotated[float, msgspec.Meta(ge=0)]
    latency_ms: Annotated[float, msgspec.Meta(ge=0)]
    accuracy: Share
    rows: Annotated[tuple[Count, ...], msgspec.Meta(min_length=2)]
    edges: Cells
    chance: Cells
    score: Score = "probability"


class Interval(msgspec.Struct, frozen=True):
    """An estimate with its 95 % confidence interval."""

    mean: float
    low: float
    high: float


class Promise(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a gear was found to do on the calibration split.

    ``loss`` is the top tier's accuracy less the cascade's, ``late`` the share of answers whose
    climb did not return in time, ``savings_captured`` the saved cost as a share of what an oracle
    saves. ``reviewed`` is the share of requests whose answer a person is to look at, which is not
    part of ``cost``; ``disagreement`` that of final answers which are not the top tier's, which is
    what audits can tell without labels.
    """

    answered_by: dict[Name, Share]
    cost: Interval
    loss: Interval
    accuracy: Interval
    late: Share = 0.0
    savings_captured: float = 0.0
    p_value: float = 1.0
    reviewed: Share = 0.0
    disagreement: Interval | None = None


class SaferStep(msgspec.Struct, frozen=True, omit_defaults=True):
    """A dearer configuration that the walk certified on its way to a gear.

    ``cost`` and ``loss`` are what was found on the calibration split.
    """

    penalty: float
    tables: Annotated[tuple[DecisionTable, ...], msgspec.Meta(min_length=1)]
    cost: float
    loss: float
    placement: str = ""
    averages: tuple[Average, ...] = ()


class Gear(msgspec.Struct, frozen=True, omit_defaults=True):
    """One certified configuration, for requests with at least ``budget_ms`` and up to ``load``.

    ``load`` multiplies the round-trip times of the trace. ``penalty`` is what one unit of cost
    must win in accuracy. A gear without tables asks the top tier at once. At the stops of
    ``averages``, tables are about the average of the tiers' probabilities. ``safer`` are what to
    follow instead while traffic is not what the gear was fitted on, the safest last; under the same
    guarantee, as all of them were certified.
    """

    name: Name
    guarantee: Guarantee
    penalty: float
    tables: tuple[DecisionTable, ...]
    promise: Promise
    budget_ms: float = 0.0
    load: float = 1.0
    placement: str = ""
    review: Review | None = None
    averages: tuple[Average, ...] = ()
    safer: Annotated[tuple[SaferStep, ...], msgspec.Meta(max_length=8)] = ()

    def average_at(self, tiers: tuple[str, ...]) -> Average | None:
        """The average for a request that these tiers have answered, the last one deciding."""
        return next((average for average in self.averages if average.tiers == tiers), None)

    def table_at(self, tiers: tuple[str, ...]) -> DecisionTable | None:
        """The table for a request that these tiers have answered, the last one deciding."""
        return next((table for table in self.tables if table.tiers == tiers), None)


class SplitFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """A labelled data set that was used: the digest of its examples and how many there are."""

    digest: str
    num_examples: Count
    source: str = ""


class TraceFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """The trace that was used; ``median_ms`` is the median round trip of the hop to each tier."""

    digest: str
    num_rows: Count
    median_ms: dict[Name, float] = {}


class ScoreReference(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the scores of ``tier`` were on the calibration split, to tell when they no longer are.

    ``quantiles`` are the order statistics at ``0, 1/m, .. 1`` of ``num_examples`` scores.
    """

    tier: Name
    kind: Score
    num_examples: Annotated[int, msgspec.Meta(ge=1)]
    quantiles: Annotated[tuple[float, ...], msgspec.Meta(min_length=2, max_length=10_001)]


class Targets(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was asked for; ``delta`` is the chance that the whole promise is wrong."""

    max_loss: float
    delta: float
    max_late: float | None = None
    min_accuracy: float | None = None
    max_cost: float | None = None


class Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """How requests climb: gears with their promises.

    ``tiers`` go from the device upwards; ``prices`` are theirs in prices of the top tier.
    ``models`` maps a tier to the digest of the model whose predictions were used. The first of the
    ``rules`` that holds decides before any model runs. ``with_averages`` says that gears which
    average were among those to choose from, whether or not one was chosen. Where no answer stands,
    ``fallback`` is gone through in its order; without one, what is in hand goes out as degraded.
    """

    name: Name
    tiers: Annotated[tuple[Name, ...], msgspec.Meta(min_length=MIN_TIERS, max_length=6)]
    prices: tuple[float, ...]
    labels: Annotated[tuple[str, ...], msgspec.Meta(min_length=2)]
    targets: Targets
    train: SplitFacts
    calibration: SplitFacts
    gears: Annotated[tuple[Gear, ...], msgspec.Meta(min_length=1)]
    models: dict[str, str] = {}
    method: str = ""
    software: str = ""
    rules: Rules = ()
    fallback: Resorts = ()
    fallback_rules: Rules = ()
    with_averages: bool = False
    trace: TraceFacts | None = None
    scores: ScoreReference | None = None

    def __post_init__(self) -> None:
        """Refuses what no single field shows to be wrong.

        Raises:
            ValueError: parts of the policy contradict one another.
        """
        names = [name for gear in self.gears for name in (gear.name, *step_names(gear))]
        if len(set(names)) != len(names):
            raise ValueError("a gear is there twice, or is called as a safer step of another")
        check_policy(self)

    def gear_for(self, budget_ms: float, load: float = 1.0) -> Gear | None:
        """The gear for a request: of the largest budget it has, the least load that covers it.

        None when the budget is below every gear's; under a load that no gear covers, the gear of
        the highest load.
        """
        fitting = [gear for gear in self.gears if gear.budget_ms <= budget_ms]
        if not fitting:
            return None
        widest = max(gear.budget_ms for gear in fitting)
        same = sorted((g for g in fitting if g.budget_ms == widest), key=lambda gear: gear.load)
        return next((gear for gear in same if gear.load >= load), same[-1])


def step_names(gear: Gear) -> list[str]:
    """What the safer steps of a gear are called where requests name theirs, the safest last.

    The last one is not in the policy: everything goes to the top tier. A gear that does so itself
    has no steps.
    """
    num_steps = len(gear.safer) + 1 if gear.tables else 0
    return [f"{gear.name}{SAFER}{number}" for number in range(1, num_steps + 1)]


_DECODER = msgspec.json.Decoder(Policy)


def decode_policy(contents: bytes, source: str) -> Policy:
    """The policy in ``contents``; ``source`` names it in errors.

    Raises:
        PolicyError: too large, not JSON, a field is missing or wrong, or its parts contradict one
            another.
    """
    if len(contents) > MAX_POLICY_BYTES:
        raise PolicyError(f"{source} is over {MAX_POLICY_BYTES} bytes: no policy")
    try:
        return _DECODER.decode(contents)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PolicyError(f"{source} is not a policy: {error}") from error


def encode_policy(policy: Policy) -> bytes:
    """Canonical JSON, the same bytes for the same policy."""
    return msgspec.json.encode(policy, order="sorted") + b"\n"


def digest_of(contents: bytes) -> str:
    """What a policy is called in logs and replies: lower-case hexadecimal sha256."""
    return hashlib.sha256(contents).hexdigest()
