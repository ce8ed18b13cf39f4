"""``tierwise review weights``: an ensemble's weights and temperature, from what people labelled."""

from __future__ import annotations

import argparse
import shutil
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from runtime.errors import PolicyError, StartError
from tierwise.cli.output import say, say_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_zoo.calibrate import Floats, Labels

# Fewer say nothing about a temperature.
MIN_EXAMPLES = 20
_BATCH = 256


def run_weights(arguments: argparse.Namespace) -> int:
    """Fits, tells log loss before and after, and writes a version only where it is told to."""
    from model_zoo.policies.collect import read_examples  # noqa: PLC0415 - keeps --help quick
    from runtime.adapters.artifacts import open_model, write_artifact  # noqa: PLC0415
    from runtime.adapters.engines import load_members  # noqa: PLC0415
    from runtime.manifest import encode_manifest, model_digest  # noqa: PLC0415

    if arguments.output is not None and arguments.output.exists():
        raise StartError(f"{arguments.output} is there already: name a new folder")
    model = open_model(arguments.model)
    manifest = model.manifest
    if manifest.task != "classification":
        raise PolicyError(f"{manifest.name} is no classifier: it has no weights to fit")
    fitted = read_examples(arguments.data).fitted(manifest)
    num = len(fitted.labels)
    if num < MIN_EXAMPLES:
        raise PolicyError(
            f"{arguments.data} has {num} examples; at least {MIN_EXAMPLES} are needed"
        )
    backends, output = load_members(model), manifest.outputs[0].name
    logits: list[Floats] = []
    for backend in backends:
        parts = [
            backend.run(dict(fitted.part(start, start + _BATCH).inputs))[output]
            for start in range(0, num, _BATCH)
        ]
        logits.append(np.concatenate(parts).astype(np.float64))
    labels = np.asarray(fitted.labels, np.int64)
    summary = fit(logits, labels, [one.weight for one in manifest.members], manifest.temperature)
    if arguments.output is not None:
        members = tuple(
            msgspec.structs.replace(one, weight=weight)
            for one, weight in zip(manifest.members, summary["weights"], strict=True)
        )
        changed = msgspec.structs.replace(
            manifest, members=members, temperature=summary["temperature"]
        )
        version = f"{manifest.version[:48]}-{model_digest(changed)[:8]}"
        changed = msgspec.structs.replace(changed, version=version)
        shutil.copytree(arguments.model, arguments.output)
        write_artifact(arguments.output / "manifest.json", encode_manifest(changed))
        summary |= {"output": str(arguments.output), "version": version}
    if arguments.json:
        say_json(summary)
        return 0
    for name in ("weights", "temperature"):
        say(f"{name + ':':14}{summary[f'{name}_before']} -> {summary[name]}")
    say(f"log loss:     {summary['before']:.4f} -> {summary['after']:.4f} on {num} examples")
    say(
        f"              {summary['held_out_before']:.4f} -> {summary['held_out_after']:.4f} on "
        "the half that was held back from a fit on the other"
    )
    if arguments.output is not None:
        say(f"written: {arguments.output}, version {summary['version']}; fit its policy again")
    return 0


def fit(
    members: Sequence[Floats], labels: Labels, weights: Sequence[float], temperature: float
) -> dict[str, Any]:
    """Weights, temperature and log losses, as they are and fitted.

    Args:
        members: logits ``(n, classes)`` of each member.
        labels: ``(n,)``.
        weights: of the members as they are.
        temperature: as it is.
    """
    from model_zoo.calibrate import (  # noqa: PLC0415 - keeps --help quick
        fit_temperature,
        fit_weights,
        log_loss,
        probabilities_of,
    )

    def fitted(part: slice) -> tuple[float, tuple[float, ...]]:
        some = [one[part] for one in members]
        found = fit_weights(some, labels[part])
        return fit_temperature(some, labels[part], found), found

    def loss(part: slice, at: float, by: Sequence[float]) -> float:
        return log_loss(probabilities_of([one[part] for one in members], at, by), labels[part])

    first, second, whole = slice(0, None, 2), slice(1, None, 2), slice(None)
    half = fitted(first)
    best_temperature, best_weights = fitted(whole)
    return {
        "weights_before": list(weights),
        "temperature_before": temperature,
        "weights": list(best_weights),
        "temperature": best_temperature,
        "before": loss(whole, temperature, weights),
        "after": loss(whole, best_temperature, best_weights),
        "held_out_before": loss(second, temperature, weights),
        "held_out_after": loss(second, *half),
    }
