"""A policy is followed only with the models that it was fitted with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from fakes.gears import CHAIN, policy
from fakes.tiers import manifest
from runtime.adapters.policy_file import open_gearbox
from runtime.errors import PolicyError
from runtime.manifest import Member, ModelFile, model_digest
from runtime.messages import Tier
from runtime.policy import Policy, digest_of, encode_policy


def written(folder: Path, followed: Policy) -> Path:
    path = folder / "policy.json"
    path.write_bytes(encode_policy(followed))
    return path


def test_a_policy_for_this_model_is_opened_under_its_digest(tmp_path: Path) -> None:
    digest = model_digest(manifest(Tier.EDGE))
    followed = policy(*CHAIN.gears, models={"edge": digest, "cloud": "of another tier"})
    path = written(tmp_path, followed)

    box = open_gearbox(path, Tier.EDGE, manifest(Tier.EDGE))

    engaged = box.engage("", remaining_ms=10, num_examples=1)
    assert engaged.travels == f"{digest_of(path.read_bytes())[:12]}/g"
    assert engaged.gear == followed.gears[0]


def test_a_policy_for_another_model_is_refused_with_both_digests_and_the_remedy(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, policy(*CHAIN.gears, models={"edge": "f" * 64}))
    served = model_digest(manifest(Tier.EDGE))

    with pytest.raises(PolicyError) as refusal:
        open_gearbox(path, Tier.EDGE, manifest(Tier.EDGE))

    for part in (str(path), "f" * 64, served, "fit again", "accept_at"):
        assert part in str(refusal.value)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"labels": ("cat", "owl", "dog")}, "other labels"),
        ({"tiers": ("edge", "regional", "moon"), "gears": ()}, "'moon'"),
        ({"tiers": ("cloud", "regional", "edge"), "gears": ()}, "another order"),
    ],
)
def test_a_policy_of_other_tiers_or_labels_is_refused(
    tmp_path: Path, fields: dict[str, Any], text: str
) -> None:
    straight = msgspec.structs.replace(CHAIN.gears[0], tables=())
    gears = (straight,) if "gears" in fields else CHAIN.gears
    path = written(tmp_path, policy(*gears, **{k: v for k, v in fields.items() if k != "gears"}))

    with pytest.raises(PolicyError, match=text):
        open_gearbox(path, Tier.EDGE, manifest(Tier.EDGE))


@pytest.mark.parametrize("contents", [None, b"", b"{", b"[]", b"\xff" * 100])
def test_what_is_no_policy_is_refused_by_name(tmp_path: Path, contents: bytes | None) -> None:
    path = tmp_path / "policy.json"
    if contents is not None:
        path.write_bytes(contents)

    with pytest.raises(PolicyError, match=r"policy\.json"):
        open_gearbox(path, Tier.EDGE, manifest(Tier.EDGE))


def test_the_digest_of_a_model_is_that_of_what_it_answers_with() -> None:
    one = manifest(Tier.CLOUD, num_members=2)
    digest = model_digest(one)

    def changed(**fields: Any) -> str:
        return model_digest(msgspec.structs.replace(one, **fields))

    assert changed(accept_at=0.1, version="9", provenance=None) == digest
    assert changed(temperature=2.0) != digest
    assert changed(members=tuple(reversed(one.members))) != digest
    assert changed(members=(one.members[0], Member("member-1", "member-1.onnx", 0.5))) != digest
    files = {name: ModelFile("1" * 64, 1) for name in one.files}
    assert changed(files=files) != digest
    same_files = {name: ModelFile(file.sha256, 2) for name, file in reversed(one.files.items())}
    assert changed(files=same_files) == digest
