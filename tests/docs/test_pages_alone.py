"""Pages whose commands need nothing running are walked through, in their order, on bundled files.

publishing.md from keys to their exchange; smaller-models.md with fewer examples; examples.md;
retraining.md as far as it needs no training; model-store.md in the store of a real device.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.documents import ROOT, SHELL, Block, blocks_of, commands_in, lines_of, tierwise_words
from fakes.updating import Load, comes_to, plant_in
from runtime.core.rollout_states import Execution

DOCS = ROOT / "docs"
BUNDLED = ROOT / "model_zoo" / "bundled" / "fashion"


def told(page: str) -> list[list[str]]:
    """What a page has ``tierwise`` do, in order."""
    found = [
        tierwise_words(words)
        for block in blocks(page)
        if block.language in SHELL
        for line in lines_of(block)
        for words in commands_in(line)
    ]
    return [words for words in found if words]


def blocks(page: str) -> list[Block]:
    return blocks_of((DOCS / page).read_text(), page)


def ran(folder: Path, words: list[str], code: int = 0, said: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tierwise", *words],
        cwd=folder,
        env={
            "PYTHONPATH": ":".join(sys.path),
            "PATH": "/usr/bin:/bin",
            "TIERWISE_KEY_PASSPHRASE": "as good as any",
            "HOME": str(folder),
        },
        input=said,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return done.stdout


def changed(folder: Path, **fields: object) -> None:
    """Writes other fields into the manifest of a model folder."""
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def models(folder: Path) -> None:
    """What the page publishes: three builds of one model, and one of another name."""
    (folder / "policy.json").write_bytes((BUNDLED / "policy.json").read_bytes())
    for name in ("edge", "int8", "float32", "head"):
        shutil.copytree(BUNDLED / "edge", folder / "out" / name)
    for name in ("int8", "float32"):
        shutil.copy(BUNDLED / "policy.json", folder / "out" / name)
    changed(folder / "out" / "float32", min_runtime={"onnxruntime": "1.19"})
    changed(folder / "out" / "head", name="head")


def part_keys(folder: Path) -> str:
    """Gives the offline keys to sticks, as the page says; the id of a root key."""
    for number in (1, 2):
        (folder / f"stick-{number}").mkdir()
    first, *others = sorted((folder / "keys").glob("root-*.pem"))
    first.rename(folder / "stick-1" / first.name)
    for one in others:
        one.rename(folder / "stick-2" / one.name)
    return first.stem.removeprefix("root-")[:8]


@pytest.mark.timeout(180)
def test_models_are_published_withdrawn_and_their_keys_exchanged(tmp_path: Path) -> None:
    commands = told("publishing.md")
    models(tmp_path)
    # The second is for repositories of before; the first shows what expires soon.
    codes = {"keys add-rollout": 3}

    said = {}
    root = ""
    for words in commands:
        known = [root if word == "7dc82883" else word.replace("/media/", "") for word in words]
        name = " ".join(words[:3] if words[1] == "rotate" else words[:2])
        said[name] = ran(tmp_path, known, code=codes.get(name, 0))
        if name == "keys init":
            root = part_keys(tmp_path)

    assert "root-" in said["keys init"]
    assert "root" in said["keys status"]
    assert "fashion/2.json" in said["models list"]
    assert "int8" in said["models inspect"]
    assert "float32" in said["models diff"] or "int8" in said["models diff"]
    history = (tmp_path / "repository" / "history.jsonl").read_text()
    assert "mistakes coats for shirts at night" in history
    assert all("new keys" in said[name] for name in said if name.startswith("keys rotate"))
    assert "eu" in said["keys add-region"]


@pytest.mark.timeout(180)
def test_smaller_models_are_made_and_told_of_as_shown(tmp_path: Path) -> None:
    *making, up = told("smaller-models.md")
    shown = [block.text for block in blocks("smaller-models.md") if block.language == "text"]
    printed = []

    for words in making:
        # A smaller model than the page has, and fewer rounds: the rest is as it stands.
        line = shlex.join(words).replace("fashion/cloud", "fashion/regional")
        line = line.replace("model_zoo/bundled/fashion", str(BUNDLED))
        line = line.replace("--epochs 10", "--epochs 2")
        line = line.replace("0:1000", "0:400") if words[1] == "quantize" else line
        printed.append(ran(tmp_path, shlex.split(line), code=int(words[1] == "prune")))

    quantized, student, _, halves = (one.splitlines() for one in printed)
    for lines, text in zip((quantized, student, halves), shown, strict=True):
        page = text.splitlines()
        assert lines[0].split() == page[0].split()
        assert [_first(line) for line in lines[1:3]] == [_first(line) for line in page[1:3]]
    assert student[3].startswith("dense, 109386 parameters, 2100 examples")
    assert halves[3:5] == shown[2].splitlines()[3:5]
    assert (tmp_path / up[2]).is_dir()
    assert (tmp_path / up[4]).is_dir()


def _first(line: str) -> str:
    """What a row is about."""
    return re.split(r"\s+\d", line)[0]


def test_a_task_of_ones_own_is_begun_as_shown(tmp_path: Path) -> None:
    (words,) = told("examples.md")

    ran(tmp_path, words)

    assert (tmp_path / "my-machines" / "prepare.py").is_file()


def test_turns_are_told_as_shown(tmp_path: Path) -> None:
    (words,) = [one for one in told("retraining.md") if one[:2] == ["retrain", "schedule"]]

    rows = [line.split()[-2:] for line in ran(tmp_path, words).splitlines()[1:]]

    pairs = {(model, region) for model, region in rows}
    assert pairs == {
        (model, region)
        for model in ("fashion-edge", "fashion-regional")
        for region in ("plant", "yard")
    }


@pytest.fixture
async def store(tmp_path: Path) -> Path:
    """The folder of a device that has taken a model."""
    async with plant_in(tmp_path) as plant, plant.agent() as agent, Load(agent):
        plant.assign(1, plant.publish(1))
        await comes_to(agent, Execution.CONFIRMED)
    return tmp_path


@pytest.mark.timeout(60)
def test_a_store_is_looked_at_as_shown(store: Path) -> None:
    (record,) = store.rglob("state.json")
    (block,) = blocks("model-store.md")

    looked = subprocess.run(
        ["bash", "-c", block.text],
        cwd=record.parent,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    ).stdout.splitlines()

    whole = b"".join(record.read_bytes().splitlines(keepends=True)[:-1])
    digest = hashlib.sha256(whole).hexdigest()
    # The record, its digest computed and as it stands; of what has rotted, nothing.
    assert json.loads("\n".join(looked[:-2]))
    assert [looked[-2].split()[0], looked[-1]] == [digest, digest]
