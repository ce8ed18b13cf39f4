"""Where the operators' port of the cloud tier is, and what opens it, as commands are told."""

from __future__ import annotations

import argparse
from pathlib import Path

from cloud_tier.operators.access import OperatorFile, read_operator_file
from runtime.errors import StartError
from tierwise.cloud_client import CloudClient

# Of a tier with the default settings, and of `tierwise up`.
_PLACES = [Path("state") / name / "operator.json" for name in ("cloud", "cloud-1")]


def access_of(arguments: argparse.Namespace) -> OperatorFile:
    """What ``--operator`` and ``--url`` say.

    Raises:
        StartError: there is no such file, or it is none.
    """
    found = access_in(*([arguments.operator] if arguments.operator else _PLACES))
    return OperatorFile(arguments.url or found.url, found.token)


def access_in(*paths: str | Path) -> OperatorFile:
    """The first operator.json that is there.

    Raises:
        StartError: none is there, or it is none.
    """
    for path in paths:
        found = read_operator_file(Path(path))
        if found is not None:
            return found
    raise StartError(
        f"there is no {' and no '.join(map(str, paths))}: the cloud tier writes operator.json into "
        "its state folder; --operator names it"
    )


def client_of(arguments: argparse.Namespace) -> CloudClient:
    """A client of the operators' port.

    Raises:
        StartError: it is not known how to get there.
    """
    access = access_of(arguments)
    return CloudClient(access.url, access.token)


def client_in(folder: Path) -> CloudClient:
    """A client of the cloud tier with this state folder.

    Raises:
        StartError: no cloud tier has been there.
    """
    return client_of(argparse.Namespace(operator=folder / "operator.json", url=""))
