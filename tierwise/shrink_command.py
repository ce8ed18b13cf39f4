"""What ``tierwise models quantize|prune|split`` do."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hardware_profiles.registry import load_profiles, profile_named
from model_zoo.policies.collect import Examples, read_examples
from runtime.errors import StartError
from runtime.messages import Tier
from tierwise.cli.output import note, say, say_json, say_table
from tierwise.cli.progress import progress_bar

if TYPE_CHECKING:
    from model_zoo.shrink.folder import Shrunk
    from model_zoo.shrink.subject import Bound, Figures, Subject

MISSING = "install what changes models: pip install 'tierwise[shrink]'"
# Those that sum 8-bit products without an overflow.
_INTEGER_PRODUCTS = frozenset({"vnni", "neon", "dotprod", "i8mm", "asimd"})


def run_quantize(arguments: argparse.Namespace) -> int:
    """Writes an int8 model."""
    _check_installed()
    from model_zoo.shrink.folder import write_shrunk  # noqa: PLC0415 - an extra
    from model_zoo.shrink.quantizing import METHODS, Wish, quantized  # noqa: PLC0415

    subject, folder = _subject(arguments), _output(arguments, "quantize")
    methods = METHODS if arguments.method == "auto" else (arguments.method,)
    wish = Wish(methods, arguments.max_loss, seven_bit=_needs_seven_bits(arguments.target))
    output = subject.manifest.outputs[0].name
    files, notes, tried = dict[str, bytes](), list[str](), dict[str, list[object]]()
    for name, contents in subject.contents().items():
        with progress_bar(name) as show:
            found = quantized(
                contents, subject.choice, output, wish, show, bound=_bound(subject, name)
            )
        files[name] = found.contents
        notes.append(f"{name}: {found.how}")
        notes += [f"{name}: did not work: {one}" for one in found.failures]
        tried[name] = [msgspec.to_builtins(one) for one in found.tried]
        if found.kept_float:
            notes.append(f"{name}: float32 are {', '.join(found.kept_float)}")
    bits = "7 of 8 bits" if wish.seven_bit else "8 bits"
    shrunk = write_shrunk(
        subject,
        files,
        folder,
        version=_version(arguments, subject),
        command=_command(),
        numeric_format=f"int8, weights in {bits}; {'; '.join(notes)}",
    )
    return _tell(arguments, shrunk, notes, tried, len(subject.report.labels))


def run_distill(arguments: argparse.Namespace) -> int:
    """Writes a student."""
    _check_installed()
    from model_zoo.shrink.distilling import (  # noqa: PLC0415 - an extra
        Pupil,
        distilled,
        kind_of,
        open_teacher,
        opinions_of,
    )
    from model_zoo.shrink.folder import write_student  # noqa: PLC0415

    folder = _output(arguments, "distill")
    examples = _part(read_examples(arguments.data), arguments.part)
    teacher, lessons, held = open_teacher(arguments.folder, examples)
    kind = kind_of(teacher.manifest) if arguments.kind == "auto" else arguments.kind
    hidden = arguments.hidden or ((16, 32, 64) if kind == "picture" else (64, 32))
    pupil = Pupil(kind, hidden, arguments.epochs, arguments.trust, arguments.seed)
    with progress_bar("teacher") as show:
        opinions = opinions_of(teacher, lessons, show)
        about_held = opinions_of(teacher, held, show)
    with progress_bar("student") as show:
        student = distilled(teacher.manifest, lessons, opinions, pupil, show)
    found = write_student(
        teacher,
        about_held,
        held,
        student,
        folder,
        tier=Tier(arguments.tier),
        version=str(arguments.version or teacher.manifest.version),
        command=_command(),
    )
    if arguments.json:
        say_json({**msgspec.to_builtins(found), "kind": kind, "num_lessons": len(lessons.labels)})
        return 0
    rows = [
        ("teacher", f"{found.accuracy_teacher:.2%}", f"{teacher.manifest.size_bytes}", "", ""),
        (
            "student",
            f"{found.student.accuracy:.2%}",
            f"{found.student.size_bytes}",
            f"{found.student.typical_ms:.3f}",
            f"{found.student.agreement:.2%}",
        ),
    ]
    say_table(("", "ACCURACY", "BYTES", "MS", "SAME LABEL"), rows, right=4)
    say(f"{kind}, {found.num_parameters} parameters, {len(lessons.labels)} examples learned from")
    say(f"written: {found.folder}")
    return 0


def run_prune(arguments: argparse.Namespace) -> int:
    """Writes a model with zeros."""
    _check_installed()
    from model_zoo.shrink.folder import write_shrunk  # noqa: PLC0415 - an extra
    from model_zoo.shrink.pruning import SPARSITIES, compressed_bytes, pruned  # noqa: PLC0415

    subject, folder = _subject(arguments), _output(arguments, "prune")
    files, notes, tried = dict[str, bytes](), list[str](), dict[str, list[object]]()
    for name, contents in subject.contents().items():
        with progress_bar(name) as show:
            found = pruned(
                contents,
                subject.choice,
                subject.manifest.outputs[0].name,
                max_loss=arguments.max_loss,
                sparsities=arguments.sparsity or SPARSITIES,
                progress=show,
                bound=_bound(subject, name),
            )
        files[name] = found.contents
        tried[name] = [msgspec.to_builtins(one) for one in found.tried]
        before, after = compressed_bytes(contents), compressed_bytes(found.contents)
        notes.append(
            f"{name}: {found.sparsity:.0%} zeros; on the way {before} -> {after} bytes (zstd)"
        )
    notes.append("zeros make transfers smaller, not runs faster: ONNX Runtime multiplies by them")
    shrunk = write_shrunk(
        subject,
        files,
        folder,
        version=_version(arguments, subject),
        command=_command(),
        numeric_format=f"pruned; {'; '.join(notes[:-1])}",
    )
    return _tell(arguments, shrunk, notes, tried, len(subject.report.labels))


def run_split(arguments: argparse.Namespace) -> int:
    """Writes a head and a tail."""
    _check_installed()
    from model_zoo.shrink.folder import write_halves  # noqa: PLC0415 - an extra
    from model_zoo.shrink.splitting import (  # noqa: PLC0415
        choose_cut,
        cuts_of,
        lessons_of,
        split,
    )

    subject = _subject(arguments)
    files = subject.contents()
    if len(files) != 1:
        raise StartError(f"{arguments.folder} has {len(files)} members: only a single one is split")
    ((name, contents),) = files.items()
    if _bound(subject, name) is not None:
        raise StartError(
            f"the file of {name} has other tensors than its manifest: a split of it would need "
            "both halves bound anew; split the file before it is imported"
        )
    cuts = cuts_of(contents)
    if arguments.list:
        if arguments.json:
            say_json([msgspec.to_builtins(one) for one in cuts])
            return 0
        rows = [(one.tensor, f"{one.depth:.0%}", f"{4 * one.num_values}") for one in cuts]
        say_table(("TENSOR", "DEPTH", "BYTES PASSED ON"), rows, right=2)
        return 0
    named = {one.tensor: one for one in cuts}
    if arguments.at is not None and arguments.at not in named:
        raise StartError(f"there is no place to cut at {arguments.at!r}: --list names them")
    cut = named[arguments.at] if arguments.at is not None else choose_cut(cuts)
    num_classes, is_half = len(subject.manifest.labels), arguments.embedding == "FP16"
    lessons, _ = lessons_of(subject.choice)
    halves = split(contents, cut, lessons, num_classes, is_half=is_half)
    base = _output(arguments, "split")
    if Tier(arguments.head_tier).height >= Tier(arguments.tail_tier).height:
        raise StartError("the head runs below the tail: correct --head-tier or --tail-tier")
    found = write_halves(
        subject,
        halves,
        (base / "head", base / "tail"),
        version=_version(arguments, subject),
        command=_command(),
        tiers=(Tier(arguments.head_tier), Tier(arguments.tail_tier)),
    )
    if arguments.json:
        say_json(msgspec.to_builtins(found))
        return 0
    halves_rows = [
        (name, f"{accuracy:.2%}", f"{num_bytes}", f"{ms:.3f}")
        for name, accuracy, num_bytes, ms in (
            ("head, alone", found.accuracy_exit, found.head_bytes, found.head_ms),
            ("and tail", found.accuracy_whole, found.tail_bytes, found.tail_ms),
        )
    ]
    say_table(("", "ACCURACY", "BYTES", "MS"), halves_rows, right=3)
    say(
        f"cut at {found.cut}, after {found.depth:.0%} of the layers: {found.embedding_bytes} bytes "
        f"go up in place of {found.input_bytes}"
    )
    say(f"written: {found.head} and {found.tail}")
    return 0


def _tell(
    arguments: argparse.Namespace,
    shrunk: Shrunk,
    notes: Sequence[str],
    tried: dict[str, list[object]],
    num_reported: int,
) -> int:
    from model_zoo.shrink.subject import FEW_EXAMPLES  # noqa: PLC0415 - an extra

    lost = shrunk.before.accuracy - shrunk.after.accuracy
    if num_reported < FEW_EXAMPLES:
        notes = [*notes, f"reported on {num_reported} examples: too few to trust these figures"]
    if arguments.json:
        say_json({**msgspec.to_builtins(shrunk), "notes": notes, "tried": tried})
    else:
        head = ("", "ACCURACY", "LOG LOSS", "CALIBRATION ERROR", "BYTES", "MS", "SAME LABEL")
        rows = [_row("before", shrunk.before), _row("after", shrunk.after)]
        say_table(head, rows, right=6)
        for one in notes:
            say(one)
        say(f"written: {shrunk.folder}")
    if lost > arguments.max_loss:
        note(
            f"tierwise: {lost:.2%} of accuracy are lost on the half that is reported, and "
            f"{arguments.max_loss:.2%} are allowed: give more examples, or allow more"
        )
        return 1
    return 0


def _row(name: str, figures: Figures) -> tuple[str, ...]:
    return (
        name,
        f"{figures.accuracy:.2%}",
        f"{figures.log_loss:.4f}",
        f"{figures.ece:.4f}",
        f"{figures.size_bytes}",
        f"{figures.typical_ms:.3f}",
        f"{figures.agreement:.2%}",
    )


def _subject(arguments: argparse.Namespace) -> Subject:
    from model_zoo.shrink.subject import open_subject  # noqa: PLC0415 - an extra

    return open_subject(arguments.folder, _part(read_examples(arguments.data), arguments.part))


def _part(examples: Examples, part: str) -> Examples:
    first, colon, last = part.partition(":")
    if not colon or not all(not one or one.isdigit() for one in (first, last)):
        raise StartError(f"--part is A:B, such as 0:1000, not {part[:40]!r}")
    return examples.part(int(first or 0), int(last) if last else None)


def _output(arguments: argparse.Namespace, what: str) -> Path:
    folder: Path = arguments.output or Path(f"{str(arguments.folder).rstrip('/')}-{what}")
    if folder.exists():
        raise StartError(f"{folder} is there already: name another with --output")
    return folder


def _version(arguments: argparse.Namespace, subject: Subject) -> str:
    return str(arguments.version or subject.manifest.version)


def _bound(subject: Subject, name: str) -> Bound | None:
    from model_zoo.shrink.subject import bound_of  # noqa: PLC0415 - an extra

    members = {one.name: one for one in subject.manifest.members}
    return bound_of(members[name], subject.manifest)


def _needs_seven_bits(target: str | None) -> bool:
    if target is None:
        return True
    profile = profile_named(target, load_profiles())
    return _INTEGER_PRODUCTS.isdisjoint(profile.features)


def _command() -> str:
    return shlex.join(["tierwise", *sys.argv[1:]])


def _check_installed() -> None:
    try:
        import onnx  # noqa: F401, PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise StartError(f"{MISSING} ({error.name} is missing)") from error
