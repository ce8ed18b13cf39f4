"""Trains one tier of the bundled task anew, on its own data and on what was seen in the field.

The served ensemble teaches; where a person has named a label, the person is followed. The other
tiers stay as they are: the new model is quantized, calibrated and given a threshold beside them,
and a policy is fitted for all of them together (PyTorch, extra ``zoo``).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch

from model_zoo import calibrate
from model_zoo.architectures import NETWORKS
from model_zoo.bundle import SIGNATURE, HeldOut, build_tier
from model_zoo.export import export_network
from model_zoo.fashion_training import LESSONS, load_task
from model_zoo.idx import to_pixels
from model_zoo.onnx_files import serialize
from model_zoo.options import RetrainOptions
from model_zoo.pipeline import Display, limited, provenance_of, scaled
from model_zoo.policies.bundled import POLICY_FILE, write_bundled_policy
from model_zoo.predict import Float32s, logits_of_file
from model_zoo.retrain_data import (
    Added,
    check_added,
    divide,
    is_said,
    part_of,
    repeated,
    taught_logits,
)
from model_zoo.tier_folders import BuiltTier, manifest_of, measure, scores_of_tiers
from model_zoo.train import train
from runtime.adapters.artifacts import ModelFolder, open_model, write_model
from runtime.core.confidence import softmax
from runtime.errors import StartError
from runtime.manifest import ModelManifest
from runtime.messages import USUAL_TIERS, Tier


class Figures(msgspec.Struct, frozen=True):
    """Accuracy of the model before and of the new one on the same ``num`` examples."""

    num: int
    before: float | None
    after: float | None


class RetrainReport(msgspec.Struct, frozen=True):
    """What came of it. ``is_better`` says whether the new model may be published.

    ``test`` are the task's own test pictures, ``field`` examples of the dataset that were held
    back and that a person has labelled; ``num_taught`` were learned from.
    """

    tier: Tier
    version: str
    folder: str
    num_taught: int
    test: Figures
    field: Figures
    accept_at: float
    is_better: bool
    why: str


class _Task(NamedTuple):
    """What is learned from, who teaches, and what is held back."""

    pixels: Float32s
    labels: calibrate.Labels
    teacher: Float32s
    held: HeldOut
    field: Added
    num_taught: int


def retrain(
    data_folder: Path,
    added: Added,
    models: Path,
    output: Path,
    options: RetrainOptions,
    *,
    display: Display,
) -> RetrainReport:
    """Writes all tiers into ``output``: one new, the others as they are in ``models``.

    Raises:
        StartError: the tier cannot be trained alone, or the data cannot be used.
        DataMissingError: the task's own data are not in ``data_folder``.
        ArtifactError: a model cannot be read, or a file not be written.
        PolicyError: the models' answers are nothing that a policy can be fitted on.
    """
    tier = Tier(options.tier)
    lesson = next((one for one in LESSONS if one.network == options.tier), None)
    if lesson is None:
        raise StartError(
            f"{options.tier} is not trained alone: build all of the task with `tierwise models "
            "build`"
        )
    served = {one: open_model(models / one) for one in USUAL_TIERS}
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(mode=True)
    task = _task(data_folder, added, served[Tier.CLOUD], options, display)
    lesson = scaled(lesson, options.epochs_scale)
    torch.manual_seed(options.seed + lesson.seed_offset)
    network = train(
        NETWORKS[lesson.network](),
        task.pixels,
        task.labels,
        lesson.recipe,
        seed=options.seed + lesson.seed_offset,
        teacher_logits=task.teacher,
        progress=display.training(lesson.network),
    )
    display.step(f"{tier}: quantize and measure")
    exported = {options.tier: serialize(export_network(network))}
    built = build_tier(exported, task.held, is_int8=True)
    display.step("calibrate and choose a threshold")
    manifest = _described(built, tier, served, task.held, options)
    write_model(output / tier, manifest, built.files)
    for other in USUAL_TIERS:
        if other is not tier:
            shutil.copytree(models / other, output / other, dirs_exist_ok=True)
    policy = write_bundled_policy(
        output,
        task.held.calibration,
        task.held.test,
        name=manifest.name,
        seed=options.seed,
        progress=display.step,
    )
    if policy is not None:
        # It travels with the model that it was fitted for.
        shutil.copyfile(output / POLICY_FILE, output / tier / POLICY_FILE)
    return _judged(output, served[tier], manifest, task, options)


def _task(
    data_folder: Path,
    added: Added,
    cloud: ModelFolder,
    options: RetrainOptions,
    display: Display,
) -> _Task:
    data = limited(load_task(data_folder, options.seed), options.limit)
    taught, held = divide(check_added(added))
    # Whom nobody has labelled examines nobody.
    field = part_of(held, is_said(held))
    own = to_pixels(data.train.pictures)
    display.step(f"the served ensemble looks at {len(own)} pictures")
    more = repeated(taught)
    said = is_said(more)[:, None]
    taught_more = np.where(said, taught_logits(more.labels), _pooled(cloud, more.pixels))
    teacher = np.concatenate([_pooled(cloud, own), taught_more])
    return _Task(
        pixels=np.concatenate([own, more.pixels]),
        labels=np.concatenate([data.train.labels, more.labels]),
        teacher=teacher.astype(np.float32),
        held=HeldOut(data.calibration, data.test),
        field=field,
        num_taught=len(taught.labels),
    )


def _pooled(model: ModelFolder, pixels: Float32s) -> calibrate.Float64s:
    if not len(pixels):
        return np.zeros((0, len(model.manifest.labels)))
    members = model.manifest.members
    logits = [
        logits_of_file(model.read_verified(file), pixels) for file in model.manifest.member_files
    ]
    return calibrate.pooled_logits(logits, [one.weight for one in members])


def _probabilities(model: ModelFolder, pixels: Float32s) -> calibrate.Float64s:
    return softmax(_pooled(model, pixels), model.manifest.temperature)


def _described(
    built: BuiltTier,
    tier: Tier,
    served: dict[Tier, ModelFolder],
    held: HeldOut,
    options: RetrainOptions,
) -> ModelManifest:
    """The manifest, with a threshold chosen beside those that the other tiers have."""
    temperature = calibrate.fit_temperature(built.calibration, held.calibration.labels)
    pixels = to_pixels(held.calibration.pictures)
    shares = {one: _probabilities(served[one], pixels) for one in USUAL_TIERS if one is not tier}
    shares[tier] = calibrate.probabilities_of(built.calibration, temperature)
    scores = scores_of_tiers([shares[one] for one in USUAL_TIERS], held.calibration.labels)
    if tier is Tier.EDGE:
        chosen = calibrate.choose_thresholds(
            scores, regional_at=[served[Tier.REGIONAL].manifest.accept_at]
        )
        accept_at = chosen.edge_accept_at
    else:
        chosen = calibrate.choose_thresholds(scores, edge_at=[served[Tier.EDGE].manifest.accept_at])
        accept_at = chosen.regional_accept_at
    measured = measure(
        built,
        calibrate.probabilities_of(built.test, temperature),
        held.test.labels,
        accept_at=accept_at,
        weights=(1.0,),
    )
    return manifest_of(
        built,
        measured,
        held.test.labels,
        signature=SIGNATURE,
        name=served[tier].manifest.name,
        version=options.version,
        tier=tier,
        accept_at=accept_at,
        temperature=temperature,
        weights=(1.0,),
        provenance=provenance_of(options.command, options.seed, options.threads),
    )


def _judged(
    output: Path,
    before: ModelFolder,
    manifest: ModelManifest,
    task: _Task,
    options: RetrainOptions,
) -> RetrainReport:
    """Compares the two models on what neither has learned from."""
    tier = manifest.tier
    after = open_model(output / tier)
    test = task.held.test
    pixels = to_pixels(test.pictures)
    on_test = _figures(before, after, pixels, test.labels)
    in_field = _figures(before, after, task.field.pixels, task.field.labels)
    lost = (on_test.before or 0.0) - (on_test.after or 0.0)
    gained = (in_field.after or 0.0) - (in_field.before or 0.0)
    tolerance = manifest.provenance.rebuild_tolerance if manifest.provenance else 0.0
    is_kept, is_gained = lost <= tolerance, gained >= 0
    why = "as good on its own data, and no worse on what was seen in the field"
    if not is_kept:
        why = f"{lost:.4f} less accurate on the task's own test pictures; {tolerance:g} is allowed"
    elif not is_gained:
        why = f"{-gained:.4f} less accurate on what was held back of the field's examples"
    return RetrainReport(
        tier=tier,
        version=options.version,
        folder=str(output),
        num_taught=task.num_taught,
        test=on_test,
        field=in_field,
        accept_at=manifest.accept_at,
        is_better=is_kept and is_gained,
        why=why,
    )


def _figures(
    before: ModelFolder, after: ModelFolder, pixels: Float32s, labels: calibrate.Labels
) -> Figures:
    if not len(labels):
        return Figures(0, None, None)
    was, now = (calibrate.accuracy_of(_pooled(one, pixels), labels) for one in (before, after))
    return Figures(len(labels), was, now)
