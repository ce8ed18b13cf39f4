"""What ``tierwise new task`` writes: an example of one's own, from a data file to three tiers.

The templates are small, as all that can be shared is in ``model_zoo`` (reading, training, building)
and in ``tierwise.demo.trial``. Nothing that is there is ever overwritten.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from runtime.errors import SettingsError, StartError

NAME = re.compile(r"[a-z][a-z0-9-]{0,47}")
# What a template becomes, in the order of use.
FILES = {
    "README.md": "README.md.txt",
    "prepare.py": "prepare.py.txt",
    "train.py": "train.py.txt",
    "run.sh": "run.sh.txt",
    "run.py": "run.py.txt",
    "test_task.py": "test_task.py.txt",
    "settings/edge.toml": "edge.toml.txt",
    "settings/gateway.toml": "gateway.toml.txt",
    "settings/cloud.toml": "cloud.toml.txt",
}


class _Kind(NamedTuple):
    """What differs from kind to kind."""

    suffix: str
    form: str
    maker: str
    lesson: str
    edge: str
    regional: str
    cloud: tuple[str, ...]


_KINDS = {
    "picture": _Kind(
        "npz",
        "An `.npz` with `pictures`, (n, height, width) or (n, height, width, colours) of numbers, "
        "and `labels` (n,).",
        "mlp",
        "epochs=20",
        "mlp(part, classes, (24,))",
        "mlp(part, classes, (96, 48))",
        ("mlp(part, classes, (256,))", "mlp(part, classes, (256, 128))"),
    ),
    "series": _Kind(
        "npz",
        "An `.npz` with `series`, (n, steps, channels) of numbers, and `labels` (n,). Or a `.csv` "
        "with the columns\n`recording` and `label` and one for each channel, a line each step; it "
        "is cut into windows of 50 steps.",
        "cnn",
        "epochs=8",
        "cnn(part, classes, (8, 12))",
        "cnn(part, classes, (24, 32))",
        ("cnn(part, classes, (32, 48), width=5)", "cnn(part, classes, (32, 48), width=9)"),
    ),
    "text": _Kind(
        "csv",
        "A `.csv` with the columns `text` and `label`, or an `.npz` with `texts` and `labels`. Of "
        "a text the first 48\ncharacters count; whoever asks a tier calls "
        "`model_zoo.text_codes.codes_of` first.",
        "ngrams",
        "epochs=6, rate=1e-2, decay=0.0",
        "ngrams(classes, (1, 2), 512)",
        "ngrams(classes, (1, 2, 3), 2048, hidden=16)",
        (
            "ngrams(classes, (1, 2, 3), 4096, hidden=32)",
            "ngrams(classes, (2, 3, 4), 4096, hidden=32)",
        ),
    ),
    "tabular": _Kind(
        "csv",
        "A `.csv` with the column `label` and columns of numbers, or an `.npz` with `values`, "
        "(n, columns), and\n`labels` (n,).",
        "mlp",
        "epochs=60",
        "mlp(part, classes, (16,))",
        "mlp(part, classes, (48, 32))",
        ("mlp(part, classes, (128, 64))", "mlp(part, classes, (96, 96, 48))"),
    ),
}  # fmt: skip


def write_task_folder(name: str, kind: str, folder: Path) -> list[Path]:
    """Writes the files of a new task into ``folder``, which must not be there; returns them.

    Raises:
        SettingsError: the name cannot be one, or there is no such kind.
        StartError: the folder is there, or cannot be written.
    """
    if NAME.fullmatch(name) is None:
        raise SettingsError(
            f"{name!r} is no name of a task: 1 to 48 of a to z, 0 to 9 and '-', a letter first"
        )
    if kind not in _KINDS:
        raise SettingsError(f"{kind!r} is no kind of task; there are {', '.join(_KINDS)}")
    written = []
    try:
        folder.mkdir(parents=True)
        (folder / "settings").mkdir()
        for path, template in FILES.items():
            target = folder / path
            target.write_text(_filled(template, name, _KINDS[kind], kind), encoding="utf-8")
            written.append(target)
        (folder / "run.sh").chmod(0o755)
    except FileExistsError as error:
        raise StartError(
            f"{folder} is there already and stays as it is; choose another with --folder"
        ) from error
    except OSError as error:
        raise StartError(f"{folder} could not be written: {error.strerror}") from error
    return written


def _filled(template: str, name: str, of_kind: _Kind, kind: str) -> str:
    file = resources.files("tierwise") / "templates" / "task" / template
    text = file.read_text(encoding="utf-8")
    for word, value in {
        "NAME": name,
        "KIND": kind,
        "SUFFIX": of_kind.suffix,
        "FORM": of_kind.form,
        "MAKER": of_kind.maker,
        "LESSON": of_kind.lesson,
        "RECIPE": _recipe(of_kind),
    }.items():
        text = text.replace(f"@{word}@", value)
    return text


def _recipe(of_kind: _Kind) -> str:
    # What texts are made of needs no look at the examples.
    unused = [] if "part" in of_kind.edge else ["    del part"]
    members = [
        f'            "member-{number}": Student({made}, lesson),'
        for number, made in enumerate(of_kind.cloud, 1)
    ]
    return "\n".join(
        [
            *unused,
            "    return {",
            "        Tier.EDGE: {",
            f'            "edge": Student({of_kind.edge}, lesson, 0.5),',
            "        },",
            "        Tier.REGIONAL: {",
            f'            "regional": Student({of_kind.regional}, lesson, 0.5),',
            "        },",
            "        Tier.CLOUD: {",
            *members,
            "        },",
            "    }",
        ]
    )
