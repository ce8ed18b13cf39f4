"""The policy that the package ships belongs to the models that it ships, and keeps its word."""

from __future__ import annotations

import math

import pytest

from model_zoo.catalog import LABELS, bundled_model, bundled_pictures, bundled_policy
from model_zoo.idx import to_pixels
from runtime.adapters.artifacts import open_model
from runtime.adapters.engines import load_members
from runtime.core.confidence import confidence_of_batch
from runtime.core.gears import weigh
from runtime.manifest import model_digest
from runtime.messages import USUAL_TIERS, Guarantee, Tier
from runtime.policy import Policy, decode_policy

NUM_PICTURES = 2_000
# Standard deviations; far outside means that the policy was fitted on something else.
NUM_DEVIATIONS = 4


@pytest.fixture(scope="module")
def policy() -> Policy:
    path = bundled_policy()
    assert path is not None
    return decode_policy(path.read_bytes(), path.name)


def test_it_is_of_the_bundled_models_and_classes(policy: Policy) -> None:
    manifests = {tier: open_model(bundled_model(tier)).manifest for tier in USUAL_TIERS}

    assert policy.tiers == tuple(USUAL_TIERS)
    assert policy.labels == LABELS
    assert policy.models == {tier: model_digest(manifests[tier]) for tier in USUAL_TIERS}


def test_it_is_certified_on_enough_pictures_that_are_not_shipped(policy: Policy) -> None:
    (gear,) = policy.gears

    assert gear.guarantee is Guarantee.CERTIFIED
    assert (policy.targets.max_loss, policy.targets.delta) == (0.01, 0.1)
    assert policy.calibration.num_examples == 5_000
    assert gear.promise.p_value <= 0.1
    assert gear.promise.answered_by["edge"] > 0.6


def test_the_device_answers_as_many_shipped_pictures_as_predicted(policy: Policy) -> None:
    (gear,) = policy.gears
    table = gear.table_at(("edge",))
    assert table is not None
    model = open_model(bundled_model(Tier.EDGE))
    (backend,) = load_members(model)
    pixels = to_pixels(bundled_pictures().pictures[:NUM_PICTURES])

    stays = 0
    for row in range(NUM_PICTURES):
        logits = backend.run({"image": pixels[row : row + 1]})["logits"]
        confidence = confidence_of_batch(logits, model.manifest.temperature)
        score = confidence.score(table.score)
        stays += weigh(gear, table, label=confidence.label, score=score).choice is None

    share = gear.promise.answered_by["edge"]
    spread = 1 / NUM_PICTURES + 1 / policy.calibration.num_examples
    allowed = NUM_DEVIATIONS * math.sqrt(share * (1 - share) * spread)
    assert stays / NUM_PICTURES == pytest.approx(share, abs=allowed)
