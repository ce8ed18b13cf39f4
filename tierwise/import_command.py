"""What ``tierwise models import`` does."""

from __future__ import annotations

import argparse
import hashlib
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import SettingsError
from tierwise.cli.output import note, say, say_json, say_table

if TYPE_CHECKING:
    from model_zoo.importing.options import Imported
    from model_zoo.importing.task_options import Targets, TaskOptions
    from model_zoo.labelled import Labelled
    from runtime.manifest import Measured, ModelManifest

NUMBERS = "numbers"
MAX_LABELS_BYTES = 16 << 20
MAX_PATH = 1000
_SHOWN = 5
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def run_import(arguments: argparse.Namespace) -> int:
    """Imports one file; nothing is written when something is wrong."""
    from model_zoo.importing.importing import import_model  # noqa: PLC0415 - keeps --help quick
    from model_zoo.importing.options import ImportOptions  # noqa: PLC0415
    from model_zoo.importing.task_importing import import_task_model  # noqa: PLC0415
    from model_zoo.importing.told_steps import log_mel_of, read_steps  # noqa: PLC0415
    from runtime.messages import Tier  # noqa: PLC0415

    tier = _asked(arguments.tier, "--tier", "Where is it to run: edge, regional or cloud?")
    name = _asked(arguments.name, "--name", "What is the model called, on all tiers?")
    if tier not in {one.value for one in Tier}:
        raise SettingsError(f"--tier {tier!r} is none; edge, regional and cloud are")
    for option, text in (("--name", name), ("--version", arguments.version)):
        if not _NAME.fullmatch(text):
            raise SettingsError(
                f"{option} {text!r}: 1 to 64 letters, digits, '.', '_' or '-', the first a letter "
                "or digit"
            )
    data, data_sha256, targets = _data(arguments)
    is_classifier = arguments.task == "classification"
    labels = _labels(arguments, has_data=data is not None or not is_classifier)
    if not (labels or is_classifier) and arguments.task not in ("anomaly", "regression"):
        labels = _labels_of_data(data, targets)
    options = ImportOptions(
        file=arguments.file,
        output=arguments.output or Path("models") / f"{name}-{tier}",
        tier=Tier(tier),
        name=name,
        version=arguments.version,
        labels=labels,
        is_numbered=arguments.labels == NUMBERS,
        scores=arguments.scores,
        scores_output=arguments.scores_output,
        layout=arguments.input_layout,
        input_name=arguments.input_name,
        input_shape=arguments.input_shape,
        input_datatype=arguments.input_type,
        resize=arguments.resize,
        scale=arguments.scale,
        normalise=arguments.normalise,
        steps=() if arguments.steps is None else read_steps(arguments.steps),
        log_mel=log_mel_of(arguments.log_mel) if arguments.log_mel else (),
        accept_at=arguments.accept_at,
        above=arguments.above,
        data=data,
        data_name=_data_name(arguments),
        data_sha256=data_sha256,
        licence=arguments.licence,
        command=_command(arguments, tier, name),
        told=task_options(arguments),
        targets=targets,
    )
    imported = (import_model if is_classifier else import_task_model)(options, _tell_step)
    notes = (*(data.notes if data else ()), *imported.notes)
    if arguments.json:
        say_json(_as_json(imported, notes))
        return 0
    for text in notes:
        note(text)
    _say(imported)
    return 0


def _tell_step(step: str) -> None:
    """For a person who waits; programs read the result."""
    if sys.stderr.isatty():
        note(f"{step} ...")


def _asked(value: str | None, option: str, question: str) -> str:
    """What was given, or what a person at a terminal says.

    Raises:
        SettingsError: nobody is there to ask.
    """
    if value:
        return value
    if sys.stdin.isatty() and sys.stderr.isatty():
        sys.stderr.write(f"{question} ")
        sys.stderr.flush()
        said = sys.stdin.readline().strip()
        if said:
            return said
    raise SettingsError(f"{option} is missing. {question}")


def _labels(arguments: argparse.Namespace, *, has_data: bool) -> tuple[str, ...]:
    text = arguments.labels
    if text is None or text == NUMBERS:
        if text is None and not has_data and sys.stdin.isatty() and sys.stderr.isatty():
            text = _asked(None, "--labels", "What are the classes called? (a,b,c or a file)")
        else:
            return ()
    path = Path(text)
    is_file = len(text) < MAX_PATH and path.is_file()
    lines = _lines(path) if is_file else text.split(",")
    labels = tuple(line.strip() for line in lines)
    while labels and not labels[-1]:
        labels = labels[:-1]
    least = 1 if arguments.task in ("detection", "multilabel") else 2
    if len(labels) < least or not all(labels):
        missing = "" if is_file else ", and there is no such file"
        raise SettingsError(
            f"--labels {text!r} are not {('one label', 'two labels')[least - 1]} or more, none of "
            f"them empty{missing}"
        )
    return labels


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MAX_LABELS_BYTES:
            raise SettingsError(f"--labels {path} is over {MAX_LABELS_BYTES} bytes")
        return path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--labels {path} cannot be read: {error}") from error


def task_options(arguments: argparse.Namespace) -> TaskOptions:
    """What is said of a task that is no classification."""
    from model_zoo.importing.task_options import TaskOptions  # noqa: PLC0415

    return TaskOptions(
        task=arguments.task,
        accept=arguments.box_accept,
        max_overlap=arguments.box_overlap,
        max_boxes=arguments.max_boxes,
        box_format=arguments.box_format,
        box_size=arguments.box_size,
        box_layout=arguments.box_layout,
        outputs=tuple(name for name in arguments.box_outputs.split(",") if name),
        threshold=arguments.threshold,
        scale=arguments.anomaly_scale,
        tolerance=arguments.tolerance,
        prototypes=arguments.prototypes,
    )


def _labels_of_data(data: Labelled | None, targets: Targets | None) -> tuple[str, ...]:
    """The names of the labels, where data have them."""
    from model_zoo.class_labels import texts_of  # noqa: PLC0415

    if data is None or data.label_names:
        return () if data is None else data.label_names
    classes = None if targets is None else targets.classes
    if classes is None:
        return ()
    if classes.dtype.kind in "US":
        return tuple(sorted(set(texts_of(classes))))
    return tuple(str(number) for number in range(int(classes.max(initial=0)) + 1))


def _data(arguments: argparse.Namespace) -> tuple[Labelled | None, str, Targets | None]:
    from model_zoo.importing.targets import find_targets, part_of_targets  # noqa: PLC0415
    from model_zoo.labelled import find_labelled, part_of, read_arrays  # noqa: PLC0415
    from runtime.errors import PolicyError  # noqa: PLC0415
    from tierwise.policy_commands import range_of_part  # noqa: PLC0415

    if arguments.data is None:
        return None, "", None
    targets = None
    arrays = read_arrays(arguments.data)
    if arguments.task == "classification":
        found = find_labelled(arrays, arguments.data.name)
    else:
        found, targets = find_targets(arrays, arguments.task, arguments.data.name)
    if found.is_multilabel:
        raise PolicyError(
            f"{arguments.data}: several labels hold of one example; a hierarchy of classifiers "
            "answers with one: is it --task multilabel?"
        )
    with arguments.data.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if arguments.part:
        start, end = range_of_part(arguments.part)
        found = part_of(found, start, end)
        targets = None if targets is None else part_of_targets(targets, start, end)
    return found, digest, targets


def _data_name(arguments: argparse.Namespace) -> str:
    if arguments.data is None:
        return ""
    return f"{arguments.data.name}[{arguments.part}]" if arguments.part else arguments.data.name


def _command(arguments: argparse.Namespace, tier: str, name: str) -> str:
    """How it was imported, without folders of this machine."""
    words = ["tierwise", "models", "import", arguments.file.name, "--tier", tier, "--name", name]
    if arguments.task != "classification":
        words += ["--task", arguments.task]
    for option in ("part", "labels", "scores", "scores_output", "input_layout", "scale"):
        value = getattr(arguments, option)
        if value not in (None, "", "auto"):
            words += [f"--{option.replace('_', '-')}", str(value)]
    if arguments.log_mel:
        words += ["--log-mel", arguments.log_mel]
    if arguments.steps is not None:
        words += ["--steps", arguments.steps.name]
    if arguments.data is not None:
        words += ["--data", arguments.data.name]
    return shlex.join(words)


def _as_json(imported: Imported, notes: tuple[str, ...]) -> dict[str, object]:
    import msgspec  # noqa: PLC0415

    manifest = imported.manifest
    return {
        "folder": str(imported.folder),
        "name": manifest.name,
        "version": manifest.version,
        "tier": manifest.tier.value,
        "inputs": msgspec.to_builtins(manifest.inputs),
        "labels": list(manifest.labels),
        "task": manifest.task,
        "member": msgspec.to_builtins(manifest.members[0]),
        "temperature": manifest.temperature,
        "accept_at": manifest.accept_at,
        "measured": msgspec.to_builtins(manifest.measured),
        "tried": [{"how": one.words, "accuracy": one.accuracy} for one in imported.tried],
        "notes": list(notes),
    }


def _say(imported: Imported) -> None:
    manifest = imported.manifest
    specs = ", ".join(f"{one.name} {one.datatype}{list(one.shape)}" for one in manifest.inputs)
    say(f"{imported.folder}: {manifest.name} {manifest.version} for the tier {manifest.tier.value}")
    if manifest.task == "classification":
        say(f"callers send {specs}; {len(manifest.labels)} classes: {_shortened(manifest.labels)}")
        say(f"scores are {manifest.members[0].outputs['logits'].scores.replace('_', ' ')}")
    else:
        named = f": {_shortened(manifest.labels)}" if manifest.labels else ""
        say(f"callers send {specs}; a model of {manifest.task}{named}")
    if imported.tried[1:]:
        rows = [(one.words, f"{one.accuracy:.1%}") for one in imported.tried[:_SHOWN]]
        say_table(("INPUTS TRIED", "RIGHT"), rows, right=1)
    measured = manifest.measured
    if measured is None:
        return
    if manifest.task != "classification":
        _say_figures(manifest, measured)
        return
    say(
        f"accuracy {measured.accuracy:.2%} on {measured.num_examples} examples; calibration error "
        f"{measured.ece_before:.3f} before, {measured.ece_after:.3f} after (temperature "
        f"{manifest.temperature:.3g})"
    )
    if measured.answered_share is not None and manifest.accept_at > 0:
        rightly = measured.answered_accuracy
        say(
            f"accept at {manifest.accept_at:.2f}: {measured.answered_share:.1%} would be answered "
            f"here{'' if rightly is None else f', {rightly:.1%} of them rightly'}"
        )


def _say_figures(manifest: ModelManifest, measured: Measured) -> None:
    figures = ", ".join(f"{name} {value:.4g}" for name, value in measured.figures.items())
    say(
        f"{figures}; {measured.accuracy:.2%} of {measured.num_examples} examples are right as a "
        f"whole; calibration error {measured.ece_after:.3f}"
    )
    if measured.answered_share is not None and manifest.accept_at > 0:
        say(f"accept at {manifest.accept_at:.2f}: {measured.answered_share:.1%} would stay here")


def _shortened(labels: tuple[str, ...]) -> str:
    shown = ", ".join(labels[:_SHOWN])
    return shown if len(labels) <= _SHOWN else f"{shown}, ..."
