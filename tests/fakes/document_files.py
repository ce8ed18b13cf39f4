"""Files that the documentation shows in part, read by what reads them in earnest."""

from __future__ import annotations

import configparser
import io
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from cloud_tier.alerts.sinks import Told
from cloud_tier.rollouts.requests import settings_of
from cloud_tier.settings import CloudSettings
from edge_agent.settings import EdgeSettings
from hardware_profiles.profile import decode_profile
from model_zoo.policies.by_hand import read_thresholds
from regional_gateway.settings import GatewaySettings
from runtime.binding import OutputBinding, Steps
from runtime.manifest import ModelManifest, decode_manifest
from runtime.policy_rules import read_rules
from runtime.settings import load

# What a tier cannot start without; pages leave it out where they are about something else.
_NEEDED: dict[str, tuple[type[msgspec.Struct], dict[str, str]]] = {
    "edge.toml": (EdgeSettings, {"agent": "a", "region": "r"}),
    "gateway.toml": (GatewaySettings, {"gateway": "g", "region": "r"}),
    "cloud.toml": (CloudSettings, {"cloud": "c"}),
}
_NAMED = re.compile(r"^# (?=[^\n]*\.toml)[^\n]*\n", re.MULTILINE)
_FILE = {"sha256": "0" * 64, "size_bytes": 1}


def read_toml(text: str, folder: Path) -> list[str]:
    """Reads each file of a block by its name, which is in the comment above it; gives the names.

    Raises:
        ValueError: the block does not begin with the name of a file, or nothing reads such a one.
        TierwiseError: what reads it does not take it.
    """
    heads = _NAMED.findall(text)
    parts = _NAMED.split(text)
    if not heads or parts[0].strip():
        raise ValueError("a TOML block begins with a comment that names its file: # edge.toml")
    read = []
    for head, part in zip(heads, parts[1:], strict=True):
        for name in re.findall(r"[\w-]+\.toml", head):
            _read_toml(name, part, folder)
            read.append(name)
    return read


def _read_toml(name: str, text: str, folder: Path) -> None:
    if name in _NEEDED:
        kind, needed = _NEEDED[name]
        path = folder / name
        path.write_text(text)
        given = tomllib.loads(text)
        flags = {key: value for key, value in needed.items() if key not in given}
        load(kind, file=path, environment={}, flags=flags)
        return
    readers: dict[str, Callable[[], object]] = {
        "rules.toml": lambda: read_rules(text, name),
        "fallback.toml": lambda: read_rules(text, name),
        "new.toml": lambda: read_thresholds(text, name),
        "plan.toml": lambda: settings_of(tomllib.loads(text)),
        "my-box.toml": lambda: decode_profile(text.encode(), name),
    }
    if name not in readers:
        raise ValueError(f"nothing is known that reads {name}")
    readers[name]()


def read_yaml(text: str, folder: Path) -> None:
    """Variables of a container are settings of a gateway; what Prometheus scrapes has targets.

    Raises:
        ValueError: it is something else.
    """
    said = yaml.safe_load(text)
    if set(said) == {"environment"}:
        variables = {name: str(value) for name, value in said["environment"].items()}
        load(GatewaySettings, file=None, environment=variables, flags=())
    elif set(said) == {"scrape_configs"}:
        if not all(job["job_name"] and job["static_configs"] for job in said["scrape_configs"]):
            raise ValueError("a job without a name or a target")
    else:
        raise ValueError(f"nothing is known that reads {sorted(said)} ({folder})")


def read_unit(text: str, unit: str) -> None:
    """A drop-in for a unit of systemd.

    Raises:
        ValueError: a section that the unit does not have.
    """
    parser = configparser.ConfigParser(strict=False, delimiters=("=",))
    parser.read_file(io.StringIO(text))
    unknown = {name for name in parser.sections() if f"[{name}]" not in unit}
    if unknown or not parser.sections():
        raise ValueError(f"no section of the unit: {sorted(unknown)}")


def read_json(text: str, form: str) -> None:
    """Reads a block as what it is part of: no field may be unknown.

    Raises:
        ValueError: it is not of that form.
    """
    match form:
        case "webhook":
            _strict(msgspec.json.decode(text, type=Told), json.loads(text))
        case "steps":
            _strict(msgspec.json.decode(text, type=Steps), json.loads(text))
        case "outputs of a member":
            decoded = msgspec.json.decode(text, type=dict[str, OutputBinding])
            _strict(decoded, json.loads(text))
        case "member":
            manifest_with({"members": [json.loads(text)], "files": {"big.onnx": _FILE}})
        case "manifest":
            manifest_with(json.loads(text))
        case "tasks":
            for part in _values(text):
                manifest_with({**_TASKS[part["task"]], **part})
        case _:
            raise ValueError(f"there is no form {form}")


def _values(text: str) -> list[dict[str, Any]]:
    """Several JSON values, one after the other."""
    decoder, found, rest = json.JSONDecoder(), [], text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        found.append(value)
        rest = rest[end:].strip()
    return found


def _spec(name: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": [-1, *shape]}


_TASKS: dict[str, dict[str, Any]] = {
    "regression": {"outputs": [_spec("interval", 3)]},
    "detection": {"outputs": [_spec("boxes", 100, 4), _spec("scores", 100, 2)]},
    "anomaly": {"outputs": [_spec("score", 1)]},
    "embedding": {
        "outputs": [_spec("vector", 16)],
        "files": {"model.onnx": _FILE, "prototypes.npy": _FILE},
    },
}


def manifest_with(part: Mapping[str, Any]) -> ModelManifest:
    """The manifest of which this is a part.

    Raises:
        ArtifactError: a tier would refuse it.
        ValueError: it has a field that there is not.
    """
    whole = {
        "name": "fashion",
        "version": "1",
        "tier": "edge",
        "files": {"model.onnx": _FILE},
        "members": [{"name": "model", "file": "model.onnx"}],
        "inputs": [_spec("input", 28, 28)],
        "outputs": [_spec("logits", 10)],
        "labels": [f"class {number}" for number in range(10)],
        "accept_at": 0.8,
        **part,
    }
    manifest = decode_manifest(json.dumps(whole).encode(), "the page")
    _strict(manifest, whole)
    return manifest


def _strict(read: object, said: object) -> None:
    """Fails where something is said that was not read: decoders skip what they do not know."""
    if isinstance(read, msgspec.Struct) and isinstance(said, dict):
        tags = {read.__struct_config__.tag_field}
        unknown = set(said) - set(read.__struct_fields__) - tags
        if unknown:
            raise ValueError(f"{type(read).__name__} has no {sorted(unknown)}")
        for name in set(said) - tags:
            _strict(getattr(read, name), said[name])
    elif isinstance(read, dict) and isinstance(said, dict):
        for name in said:
            _strict(read[name], said[name])
    elif isinstance(read, list | tuple) and isinstance(said, list):
        for one, other in zip(read, said, strict=True):
            _strict(one, other)
