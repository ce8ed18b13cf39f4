"""The models that the rollout demo rolls out: one as good as the bundled one, one quietly worse."""

from __future__ import annotations

from pathlib import Path

from model_zoo.catalog import bundled_model
from runtime.adapters.artifacts import open_model
from runtime.messages import Tier
from tierwise.demo.variations import AS_GOOD, QUIETLY_WORSE, varied, write_variation


def test_one_is_as_good_and_one_is_worse_by_what_no_check_of_its_files_would_show(
    tmp_path: Path,
) -> None:
    bundled = open_model(bundled_model(Tier.EDGE)).manifest
    assert bundled.measured is not None

    good = write_variation(AS_GOOD, tmp_path / "good")
    worse = write_variation(QUIETLY_WORSE, tmp_path / "worse")
    loaded = open_model(tmp_path / "worse").manifest

    assert abs(good.accuracy - bundled.measured.accuracy) < 0.01
    assert 0.01 < bundled.measured.accuracy - worse.accuracy < 0.1
    assert good.answered_share is not None
    assert worse.answered_share is not None
    escalated = 1 - good.answered_share, 1 - worse.answered_share
    assert escalated[1] > 1.4 * escalated[0]
    assert int(bundled.version) < AS_GOOD.version < int(loaded.version)
    assert loaded.inputs == bundled.inputs


def test_a_variation_is_the_same_every_time_and_leaves_the_file_a_model() -> None:
    model = open_model(bundled_model(Tier.EDGE))
    (name,) = model.manifest.files
    contents = model.read_verified(name)

    once, again = varied(contents, AS_GOOD), varied(contents, AS_GOOD)

    assert once == again != contents
    assert len(once) == len(contents)
