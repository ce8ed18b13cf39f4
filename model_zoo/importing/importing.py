"""From a model file of another project to a model folder.

    look at the file -> find a way in -> find the scores -> calibrate and measure -> write

Nothing is written before everything is known; the folder is there as a whole or not at all. Of the
data nothing is kept but figures.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime

from model_zoo.importing.entering import Entry, enter
from model_zoo.importing.files import file_name_of, merged, read_model_file
from model_zoo.importing.judging import Judged, judge
from model_zoo.importing.options import Imported, ImportOptions
from model_zoo.importing.trial import check_inputs, check_outputs
from runtime.adapters.artifacts import (
    ModelFolder,
    describe_file,
    open_model,
    write_artifact,
    write_model,
)
from runtime.adapters.engines import load_members
from runtime.adapters.golden import make_golden
from runtime.adapters.signatures import FileSignature, read_signature
from runtime.binding import OutputBinding
from runtime.catalogue import GOLDEN_NAME
from runtime.errors import ArtifactError
from runtime.manifest import (
    MANIFEST_NAME,
    Measured,
    Member,
    ModelManifest,
    Provenance,
    encode_manifest,
)
from runtime.messages import TensorSpec

OUTPUT_NAME = "logits"
Progress = Callable[[str], None]


def import_model(options: ImportOptions, progress: Progress = lambda _step: None) -> Imported:
    """Imports one classifier and writes its folder.

    Raises:
        ArtifactError: the file cannot be used as it is; the text says what to do.
        BackendError: it fails to run.
        PolicyError: the data do not fit it.
    """
    if options.output.exists():
        raise ArtifactError(
            f"{options.output} is there already: remove it, or choose another folder with --output"
        )
    progress("look at the file")
    read, engine = read_model_file(options.file)
    contents = merged(options.file, read) if engine == "onnxruntime" else read
    source = str(options.file)
    signature = read_signature(contents, engine, source)
    check_inputs(signature, source)
    check_outputs(signature, source)
    progress("find out what it takes and gives")
    entry = enter(options, contents, signature)
    name = file_name_of(options.file, engine)
    draft = _manifest(options, entry, {name: contents})
    partial = make_beside(options.output)
    try:
        write_model(partial, draft, {name: contents})
        progress("calibrate and measure")
        judged = judge(options, ModelFolder(partial, draft))
        manifest = msgspec.structs.replace(
            draft,
            temperature=judged.temperature,
            accept_at=judged.accept_at,
            measured=judged.measured,
            provenance=provenance_of(options, read, signature, judged),
        )
        progress("write the folder")
        finish(partial, options.output, manifest)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    notes = [*entry.notes, *judged.notes]
    if contents != read:
        notes.insert(0, "the weights that were in other files are in this one now")
    return Imported(manifest, options.output, tuple(notes), entry.tried)


def _manifest(
    options: ImportOptions,
    entry: Entry,
    files: dict[str, bytes],
) -> ModelManifest:
    """Everything but what labelled data say.

    Raises:
        ArtifactError: a name cannot be used, or labels repeat.
    """
    (file,) = files
    scores = entry.scores
    output = OutputBinding(
        scores.tensor.name,
        scores.tensor.datatype,
        scores.tensor.shape or (),
        scores=scores.form,
        floor=scores.floor,
    )
    try:
        member = Member("model", file, inputs=dict(entry.binds), outputs={OUTPUT_NAME: output})
        draft = ModelManifest(
            name=options.name,
            version=options.version,
            tier=options.tier,
            files={name: describe_file(contents) for name, contents in files.items()},
            members=(member,),
            inputs=entry.specs,
            outputs=(TensorSpec(OUTPUT_NAME, "FP32", (-1, scores.num_classes)),),
            labels=entry.labels,
            accept_at=0.0,
        )
        # What only a decoder checks: names, sizes, lengths.
        return msgspec.json.decode(msgspec.json.encode(draft), type=ModelManifest)
    except (ValueError, msgspec.ValidationError) as error:
        raise ArtifactError(f"{options.file} cannot be described: {error}") from error


def provenance_of(
    options: ImportOptions, read: bytes, signature: FileSignature, judged: Judged
) -> Provenance:
    """Where the folder comes from: the file, the data, the command."""
    data = "none: not measured"
    if options.data is not None:
        data = f"{options.data_name or options.data.source}"
        if options.data_sha256:
            data += f" (sha256 {options.data_sha256})"
    return Provenance(
        data_set=data,
        licence=options.licence,
        seed=0,
        command=options.command,
        libraries={
            signature.package: signature.package_version,
            "numpy": np.__version__,
            **({"onnxruntime": onnxruntime.__version__} if signature.engine == "litert" else {}),
        },
        threshold_rule=judged.threshold_rule,
        rebuild_tolerance=_tolerance(judged.measured),
        source=options.file.name,
        source_sha256=hashlib.sha256(read).hexdigest(),
    )


def _tolerance(measured: Measured | None) -> float:
    """How far the accuracy on other examples may lie from what was measured: 3 standard errors."""
    if measured is None:
        return 0.0
    variance = measured.accuracy * (1 - measured.accuracy) / measured.num_examples
    return round(3 * math.sqrt(variance), 4)


def finish(partial: Path, folder: Path, manifest: ModelManifest) -> None:
    """The last manifest, golden examples, and the right name.

    Raises:
        ArtifactError: it could not be written.
    """
    write_artifact(partial / MANIFEST_NAME, encode_manifest(manifest))
    backends = load_members(open_model(partial))
    write_artifact(partial / GOLDEN_NAME, make_golden(manifest, backends))
    for backend in backends:
        backend.close()
    try:
        partial.chmod(0o755)
        # Fails where there is something in it by now.
        partial.rename(folder)
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be written: {error.strerror}") from error


def make_beside(folder: Path) -> Path:
    """A folder for what is not complete yet, where the whole is to be.

    Raises:
        ArtifactError: there can be none.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise ArtifactError(
            f"{folder} cannot be written: {error.strerror}; choose another folder with --output"
        ) from error
