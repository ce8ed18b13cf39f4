"""From a detector, an anomaly scorer, an embedder, or a model of several labels or of a number.

As ``model_zoo.importing.importing`` does for classifiers, for files of another project that give
something else. What data do not say has to be told.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np

from model_zoo.importing.files import file_name_of, merged, read_model_file
from model_zoo.importing.importing import Progress, finish, make_beside, provenance_of
from model_zoo.importing.options import Imported, ImportOptions
from model_zoo.importing.task_entering import TaskEntry, enter_task
from model_zoo.importing.task_judging import judge_task
from model_zoo.importing.trial import check_inputs
from runtime.adapters.artifacts import ModelFolder, describe_file, write_artifact, write_model
from runtime.adapters.prototypes import decode_prototypes, encode_prototypes
from runtime.adapters.signatures import read_signature
from runtime.core.confidence import Floats
from runtime.distance_rules import checked_prototypes
from runtime.errors import ArtifactError
from runtime.manifest import Member, ModelManifest
from runtime.task_fields import AnomalyFields, DetectionFields, EmbeddingFields

PROTOTYPES_NAME = "prototypes.npy"


def import_task_model(options: ImportOptions, progress: Progress = lambda _step: None) -> Imported:
    """Imports one model of ``options.told.task`` and writes its folder.

    Raises:
        ArtifactError: the file cannot be used as it is, or something has to be said.
        BackendError: it fails to run.
        PolicyError: the data do not fit it.
    """
    if options.output.exists():
        raise ArtifactError(
            f"{options.output} is there already: remove it, or choose another folder with --output"
        )
    _check_said(options)
    progress("look at the file")
    read, engine = read_model_file(options.file)
    contents = merged(options.file, read) if engine == "onnxruntime" else read
    source = str(options.file)
    signature = read_signature(contents, engine, source)
    check_inputs(signature, source)
    progress("find out what it takes and gives")
    entry = enter_task(options, contents, signature)
    prototypes = _said_prototypes(options)
    files = {file_name_of(options.file, engine): contents}
    if options.told.task == "embedding":
        # Some have to be there until the data, or a file, say which.
        numbers = (len(options.labels), entry.outputs[0].shape[1])
        files[PROTOTYPES_NAME] = encode_prototypes(
            np.ones(numbers) if prototypes is None else prototypes
        )
    draft = _manifest(options, entry, files)
    if prototypes is not None:
        checked_prototypes(draft, prototypes)
    partial = make_beside(options.output)
    try:
        write_model(partial, draft, files)
        progress("measure")
        found = judge_task(options, ModelFolder(partial, draft), prototypes, entry.picture)
        if found.prototypes is not None:
            files[PROTOTYPES_NAME] = encode_prototypes(found.prototypes)
            write_artifact(partial / PROTOTYPES_NAME, files[PROTOTYPES_NAME])
        manifest = msgspec.structs.replace(
            found.manifest,
            files={name: describe_file(one) for name, one in files.items()},
            accept_at=found.judged.accept_at,
            measured=found.judged.measured,
            provenance=provenance_of(options, read, signature, found.judged),
        )
        progress("write the folder")
        finish(partial, options.output, manifest)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    notes = (*entry.notes, *found.notes, *found.judged.notes)
    return Imported(manifest, options.output, notes, ())


def _check_said(options: ImportOptions) -> None:
    """Refuses what is missing, or of another task, before anything is done.

    Raises:
        ArtifactError: the text names the option.
    """
    told, has_data = options.told, options.targets is not None
    if options.above is not None:
        raise ArtifactError("--above is for classifiers; leave it out, or say --accept-at")
    if told.task in ("anomaly", "regression"):
        if options.labels:
            raise ArtifactError(f"a model of {told.task} has no --labels: leave it out")
    elif not options.labels:
        raise ArtifactError(
            f"what the labels of this model of {told.task} are called is not known: give --labels "
            'labels.txt or --labels "a,b,c", in the order of the model'
        )
    missing = {
        "anomaly": not has_data and (told.threshold is None or told.scale is None),
        "embedding": not has_data and told.prototypes is None,
        "regression": not told.tolerance > 0,
    }
    if missing.get(told.task):
        raise ArtifactError(
            {
                "anomaly": "from which score on an example is anomalous is not known: say "
                "--threshold and --anomaly-scale, or give --data with labels 0 and 1",
                "embedding": "what vectors are to be near is not known: give --prototypes "
                "FILE.npy, a row for each of --labels, or --data with labels to make them of",
                "regression": "say with --tolerance how far a number may be off, in its unit",
            }[told.task]
        )


def _said_prototypes(options: ImportOptions) -> Floats | None:
    path = options.told.prototypes
    if path is None:
        return None
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"--prototypes {path} cannot be read: {error.strerror}") from error
    return decode_prototypes(contents, f"--prototypes {path}")


def _manifest(options: ImportOptions, entry: TaskEntry, files: dict[str, bytes]) -> ModelManifest:
    """Everything but what data say.

    Raises:
        ArtifactError: a name cannot be used, or something contradicts something else.
    """
    told = options.told
    fields: dict[str, object] = {
        "detection": {
            "detection": DetectionFields(
                told.accept,
                told.max_overlap,
                told.max_boxes,
                entry.box_format,
                told.box_size or (1.0, 1.0),
            )
        },
        "anomaly": {
            "anomaly": AnomalyFields(
                0.0 if told.threshold is None else told.threshold,
                1.0 if told.scale is None else told.scale,
            )
        },
        "embedding": {"embedding": EmbeddingFields(PROTOTYPES_NAME)},
        "regression": {"tolerance": told.tolerance},
    }.get(told.task, {})  # type: ignore[assignment]
    file = next(name for name in files if Path(name).suffix != ".npy")
    try:
        member = Member("model", file, inputs=dict(entry.binds), outputs=dict(entry.gives))
        draft = ModelManifest(
            name=options.name,
            version=options.version,
            tier=options.tier,
            files={name: describe_file(contents) for name, contents in files.items()},
            members=(member,),
            inputs=entry.inputs,
            outputs=entry.outputs,
            labels=options.labels,
            accept_at=0.0,
            task=told.task,
            **fields,  # type: ignore[arg-type]
        )
        # What only a decoder checks: names, sizes, lengths.
        return msgspec.json.decode(msgspec.json.encode(draft), type=ModelManifest)
    except (ValueError, msgspec.ValidationError) as error:
        raise ArtifactError(f"{options.file} cannot be described: {error}") from error
