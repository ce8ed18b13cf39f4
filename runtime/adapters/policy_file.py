"""Policy files on disk, and whether they are for the model that is to follow them.

A guarantee holds only for the models whose predictions it was fitted on, so a policy for another
model is refused at the start and never followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtime.core.gearbox import DIGEST_CHARACTERS, Gearbox
from runtime.errors import PolicyError
from runtime.manifest import ModelManifest, model_digest
from runtime.messages import Tier
from runtime.policy import MAX_POLICY_BYTES, Policy, decode_policy, digest_of
from runtime.policy_rules import check_rules_fit

REMEDY = (
    "collect predictions and fit again with the models that serve, or leave `escalation.policy` "
    "empty and set `model.accept_at`"
)


@dataclass(frozen=True, slots=True)
class KnownPolicy:
    """A policy with what it is called in logs; ``source`` names it to people."""

    policy: Policy
    digest: str
    source: str

    @property
    def short(self) -> str:
        """As logs have it."""
        return self.digest[:DIGEST_CHARACTERS]


def read_policy(path: Path) -> KnownPolicy:
    """The policy in a file.

    Raises:
        PolicyError: it cannot be read, or is no policy.
    """
    try:
        with path.open("rb") as file:
            contents = file.read(MAX_POLICY_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"the policy {path} cannot be read: {error.strerror}") from error
    return KnownPolicy(decode_policy(contents, str(path)), digest_of(contents), str(path))


def open_gearbox(path: Path, tier: Tier, manifest: ModelManifest) -> Gearbox:
    """The gears of a policy file, for a tier with this model.

    Raises:
        PolicyError: it cannot be read, is no policy, or was not fitted with this model.
    """
    known = read_policy(path)
    policy = known.policy
    _check_tiers(policy, path)
    _check_model(policy, path, tier, manifest)
    if tier.value == policy.tiers[0]:
        check_rules_fit((*policy.rules, *policy.fallback_rules), manifest, path)
    return Gearbox(tier, policy, known.digest)


def _check_tiers(policy: Policy, path: Path) -> None:
    known = [tier.value for tier in Tier]
    unknown = [name for name in policy.tiers if name not in known]
    if unknown:
        raise PolicyError(
            f"{path} names the tier {unknown[0]!r}; the tiers that serve are {', '.join(known)}"
        )
    if list(policy.tiers) != [name for name in known if name in policy.tiers]:
        raise PolicyError(f"{path} has its tiers in another order than {', '.join(known)}")


def _check_model(policy: Policy, path: Path, tier: Tier, manifest: ModelManifest) -> None:
    if manifest.task != "classification":
        raise PolicyError(
            f"{path}: a policy decides by the label, and {manifest.name} is a model of "
            f"{manifest.task}; leave it out: then `accept_at` decides"
        )
    if policy.labels != manifest.labels:
        raise PolicyError(
            f"{path} has other labels than the model {manifest.name} {manifest.version}: {REMEDY}"
        )
    fitted_with, served = policy.models.get(tier.value), model_digest(manifest)
    if fitted_with is not None and fitted_with != served:
        raise PolicyError(
            f"{path} was fitted with a model of {tier.value} whose digest is {fitted_with}; "
            f"{manifest.name} {manifest.version} has {served}: {REMEDY}"
        )
