"""Settings of the rollout demo: what takes days in a fleet takes a minute here.

Only times and numbers differ from what is usual; the code is the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model_zoo.catalog import bundled_model
from runtime.messages import Tier
from tierwise.demo.plan import (
    CLOUD,
    CLOUD_REGION,
    GATEWAY,
    REGION,
    Address,
    broker_section,
    http_and_state,
    operators_section,
    review_section,
)

MODEL = "fashion-edge"
# How long each agent is watched before anything changes.
BASELINE_S = 20.0
# Three canaries, then half, then all.
SHARES = (0.1, 0.5, 1.0)
ROLLOUT: dict[str, Any] = {
    "shares": list(SHARES),
    "baseline_s": BASELINE_S,
    "fill_s": 60.0,
    "max_in_flight": 3,
    "assignments_per_minute": 600,
    "offline_after_s": 10.0,
    "min_failures": 2,
    "gate": {
        "looks_s": [8.0, 14.0, 20.0, 30.0, 40.0],
        "tolerated_rate": 0.02,
        "margin": 1.6,
    },
    "shadow": {"min_requests": 150, "max_disagreement": 0.05, "max_s": 60.0},
    "deadlines": {
        "offered": 30.0,
        "downloading": 30.0,
        "verified": 60.0,
        "shadow": 90.0,
        "trial": 60.0,
        "returning": 60.0,
    },
}


_CONTROLLER = "tick_interval_s = 0.25\nbucket_s = 1\nrepeat_s = 5\n"
UPDATES = """\
refresh_interval_s = 2
report_interval_s = 1
judge_interval_s = 0.5
shadow_share = 1.0
min_shadowed = 30
soak_s = 4
min_requests = 15
deadline_s = 120
"""


def cloud_settings(folder: Path, broker: Address, repository: Path, key: Path) -> str:
    """The cloud tier, which holds the repository and drives rollouts."""
    return "\n".join(
        (
            f'cloud = "{CLOUD}"\nregion = "{CLOUD_REGION}"\n',
            broker_section("broker", broker),
            http_and_state(folder, CLOUD),
            operators_section(folder),
            f'[updates]\nrepository = "{repository}"\n',
            f'[rollouts]\nkey_file = "{key}"\n{_CONTROLLER}',
        )
    )


def gateway_settings(folder: Path, broker: Address, cloud_url: str) -> str:
    """The gateway, which mirrors the repository."""
    return "\n".join(
        (
            f'gateway = "{GATEWAY}"\nregion = "{REGION}"\n',
            broker_section("broker", broker),
            f'[upstream]\nregion = "{CLOUD_REGION}"\n',
            broker_section("upstream.broker", broker),
            http_and_state(folder, GATEWAY),
            f'[updates]\nupstream_url = "{cloud_url}"\nrefresh_interval_s = 2\n',
        )
    )


def agent_settings(
    folder: Path, name: str, broker: Address, *, gateway_url: str, root: Path, budget_ms: float
) -> str:
    """An agent, which takes new models and says every second how they do."""
    return "\n".join(
        (
            f'agent = "{name}"\nregion = "{REGION}"\n',
            broker_section("broker", broker),
            http_and_state(folder, name),
            f"[request]\ndefault_budget_ms = {budget_ms}\n",
            review_section(),
            # Named, so that a threshold decides: each version brings its own.
            f'[model]\nfolder = "{bundled_model(Tier.EDGE)}"\n',
            f'[updates]\nurl = "{gateway_url}"\nroot = "{root}"\n{UPDATES}',
        )
    )
