"""The folder in which a build keeps its trained networks, so that it can go on where it was."""

from __future__ import annotations

from pathlib import Path

import msgspec

from model_zoo.options import BuildOptions
from runtime.adapters.artifacts import write_artifact
from runtime.errors import StartError

OPTIONS_FILE = "build.json"


def claim(work: Path, options: BuildOptions) -> None:
    """Marks ``work`` as this build's; networks of another one must not be taken for ours.

    Raises:
        StartError: it holds networks of a build with other options, or of an unknown one.
        ArtifactError: it could not be written.
    """
    # The version is a name for the result and changes nothing about it.
    wanted = msgspec.json.encode(msgspec.structs.replace(options, version=""))
    path = work / OPTIONS_FILE
    if path.is_file():
        found = path.read_bytes()
        if found != wanted:
            raise StartError(
                f"{work} holds networks of a build with other options, "
                f"{found.decode(errors='replace')}; pass another folder with --work"
            )
    elif any(work.glob("*.pt")):
        raise StartError(
            f"{work} holds networks of an unknown build; pass another folder with --work"
        )
    else:
        write_artifact(path, wanted)
