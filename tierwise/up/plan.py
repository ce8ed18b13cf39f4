"""Which tiers there are, and their settings files.

edge alone | edge, cloud | edge, regional | edge, regional, cloud
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.adapters.artifacts import open_model, write_artifact
from runtime.errors import ArtifactError
from runtime.manifest import ModelManifest, model_digest
from tierwise.demo.plan import (
    CLOUD,
    CLOUD_REGION,
    GATEWAY,
    Address,
    broker_section,
    operators_section,
)

EDGE = "edge-1"
REGION = "local"
MODULES = {CLOUD: "cloud_tier", GATEWAY: "regional_gateway", EDGE: "edge_agent"}


@dataclass(frozen=True, slots=True)
class Plan:
    """Model folders by tier (``edge`` is always there), and what all of them follow."""

    folders: Mapping[str, Path]
    state: Path
    policy: Path | None
    port: int
    budget_ms: float

    @property
    def sites(self) -> list[str]:
        """The processes, the top first: whoever starts finds who is above."""
        present = {"cloud": CLOUD, "regional": GATEWAY, "edge": EDGE}
        return [site for tier, site in present.items() if tier in self.folders]

    @property
    def edge_region(self) -> str:
        """Where the agent looks for who is above it."""
        return REGION if "regional" in self.folders or len(self.folders) == 1 else CLOUD_REGION


def check_models(folders: Mapping[str, Path]) -> dict[str, ModelManifest]:
    """The manifests by tier, of models that can answer the same request.

    Raises:
        ArtifactError: a folder is none, or the models are of different tasks.
    """
    found = {tier: open_model(folder).manifest for tier, folder in folders.items()}
    edge = found["edge"]
    climbs, climbs_from = edge.inputs, ""
    for tier, manifest in found.items():
        if manifest.tier.kind != tier:
            raise ArtifactError(
                f"{folders[tier]} is for the tier {manifest.tier.value}, not {tier}: its manifest "
                "says so"
            )
        for what, one, other in (
            ("the name", edge.name, manifest.name),
            ("the task", edge.task, manifest.task),
            ("the classes", edge.labels, manifest.labels),
            ("what climbs", climbs, manifest.inputs),
        ):
            if one != other:
                raise ArtifactError(
                    f"{folders['edge']} and {folders[tier]} must agree on {what}; they have "
                    f"{one} and {other}. Import both with the same --name, --labels and --data"
                )
        if manifest.accepts_from and climbs_from not in manifest.accepts_from:
            raise ArtifactError(
                f"{folders[tier]} takes the output of the model {manifest.accepts_from[0][:12]}, "
                f"which is not below it: start both halves of one split"
            )
        if manifest.forwards:
            climbs = tuple(spec for spec in manifest.outputs if spec.name == manifest.forwards)
            climbs_from = model_digest(manifest)
    return found


def write_settings(plan: Plan, broker: Address) -> dict[str, Path]:
    """A settings file for each process.

    Raises:
        ArtifactError: one could not be written.
    """
    texts = {
        site: (_of_cloud, _of_gateway, _of_edge)[(CLOUD, GATEWAY, EDGE).index(site)](plan, broker)
        for site in plan.sites
    }
    files = {site: plan.state / f"{site}.toml" for site in texts}
    for site, text in texts.items():
        write_artifact(files[site], text.encode())
    return files


def _of_cloud(plan: Plan, broker: Address) -> str:
    head = f"cloud = {_quoted(CLOUD)}\nregion = {_quoted(CLOUD_REGION)}\n"
    return "\n".join(
        (head, _common(plan, CLOUD, "cloud", broker), operators_section(plan.state), _policy(plan))
    )


def _of_gateway(plan: Plan, broker: Address) -> str:
    head = f"gateway = {_quoted(GATEWAY)}\nregion = {_quoted(REGION)}\n"
    upstream = f"[upstream]\nregion = {_quoted(CLOUD_REGION)}\n"
    upstream += "" if "cloud" in plan.folders else "enabled = false\n"
    above = broker_section("upstream.broker", broker)
    common = _common(plan, GATEWAY, "regional", broker)
    return "\n".join((head, common, upstream, above, _policy(plan)))


def _of_edge(plan: Plan, broker: Address) -> str:
    is_above_cloud = "regional" not in plan.folders and "cloud" in plan.folders
    head = f"agent = {_quoted(EDGE)}\nregion = {_quoted(plan.edge_region)}\n"
    head += 'upstream_tier = "cloud"\n' if is_above_cloud else ""
    request = f"[request]\ndefault_budget_ms = {plan.budget_ms}\n"
    policy = _policy(plan)
    if len(plan.folders) == 1:
        policy = policy or "[escalation]\n"
        policy += "enabled = false\n"
    return "\n".join((head, _common(plan, EDGE, "edge", broker), request, policy))


def _common(plan: Plan, site: str, tier: str, broker: Address) -> str:
    port = plan.port if site == EDGE else 0
    return "\n".join(
        (
            broker_section("broker", broker),
            f"[http]\nport = {port}\n",
            f"[state]\nfolder = {_quoted(str(plan.state / site))}\n",
            f"[model]\nfolder = {_quoted(str(plan.folders[tier].resolve()))}\n",
        )
    )


def _policy(plan: Plan) -> str:
    if plan.policy is None:
        return ""
    return f"[escalation]\npolicy = {_quoted(str(plan.policy.resolve()))}\n"


def _quoted(text: str) -> str:
    """A TOML string; JSON's escapes are among TOML's."""
    return json.dumps(text)
