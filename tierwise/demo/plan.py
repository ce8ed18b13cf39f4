"""Names, folders and settings files of the demo's processes."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from cloud_tier.operators.access import FILE_NAME as OPERATOR_FILE
from cloud_tier.operators.access import read_operator_file
from runtime.errors import StartError

REGION = "demo"
CLOUD_REGION = "cloud"
GATEWAY = "gateway-1"
CLOUD = "cloud-1"
LOG_FILE = "demo.log"


@dataclass(frozen=True, slots=True)
class Address:
    """Host and port of a broker, or of the proxy before it."""

    host: str
    port: int


def operators_section(folder: Path) -> str:
    """A section for any free port, where the logs of all tiers of a run are shown."""
    return f"[operators]\nport = 0\ndecision_logs = {json.dumps(str(folder))}\n"


def review_section() -> str:
    """A section with which people are asked about some answers, as many as one would look at."""
    return "[review]\nrandom_share = 0.02\nsampled_per_hour = 60\n"


def operator_file(folder: Path) -> Path:
    """What opens the operators' port of a run, for commands."""
    return folder / CLOUD / OPERATOR_FILE


def dashboard_of(folder: Path) -> str:
    """Where the dashboard of a run is, with what opens it; empty where there is no cloud tier."""
    found = read_operator_file(operator_file(folder))
    return f"{found.url}/#token={found.token}" if found else ""


def state_folder(chosen: str | None) -> Path:
    """The folder of this run; it is kept.

    Raises:
        StartError: it cannot be made, or nothing can be written there.
    """
    if chosen:
        folder = Path(chosen)
    else:
        base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        stamp = time.strftime("%Y%m%d-%H%M%S")
        folder = Path(base) / "tierwise" / f"demo-{stamp}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOG_FILE).touch()
    except OSError as error:
        raise StartError(
            f"the folder {folder} cannot be used: {error.strerror}; --state names another"
        ) from error
    return folder.resolve()


def agent_names(num_agents: int) -> list[str]:
    """The agents of the demo."""
    return [f"agent-{number}" for number in range(1, num_agents + 1)]


def broker_section(section: str, address: Address) -> str:
    """A section that says where a broker is."""
    return f'[{section}]\nhost = "{address.host}"\nport = {address.port}\nkeep_alive_s = 5\n'


def http_and_state(folder: Path, name: str) -> str:
    """Sections for any free port, and for a state folder of its own."""
    return f'[http]\nport = 0\n\n[state]\nfolder = "{folder / name}"\n'


def write_settings(
    folder: Path, agents: list[str], broker: Address, cloud_link: Address, budget_ms: float
) -> dict[str, Path]:
    """Writes one settings file a process; the gateway reaches the cloud through ``cloud_link``."""
    request = f"[request]\ndefault_budget_ms = {budget_ms}\n"
    texts = {
        CLOUD: f'cloud = "{CLOUD}"\nregion = "{CLOUD_REGION}"\n\n'
        + "\n".join(
            (
                broker_section("broker", broker),
                http_and_state(folder, CLOUD),
                operators_section(folder),
            )
        ),
        GATEWAY: f'gateway = "{GATEWAY}"\nregion = "{REGION}"\n\n'
        + "\n".join(
            (
                broker_section("broker", broker),
                f'[upstream]\nregion = "{CLOUD_REGION}"\n',
                broker_section("upstream.broker", cloud_link),
                http_and_state(folder, GATEWAY),
            )
        ),
    }
    for agent in agents:
        texts[agent] = f'agent = "{agent}"\nregion = "{REGION}"\n\n' + "\n".join(
            (
                broker_section("broker", broker),
                request,
                http_and_state(folder, agent),
                review_section(),
            )
        )
    files = {name: folder / f"{name}.toml" for name in texts}
    for name, text in texts.items():
        files[name].write_text(text)
    return files
