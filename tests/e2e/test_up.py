"""``tierwise up``: hierarchies of every height from model folders, and what it refuses."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from fakes.foreign import CLASSES, onnx_classifier, save_data, weights_of
from fakes.waiting import eventually_sync
from model_zoo.catalog import bundled_model
from model_zoo.policies.collect import read_examples
from tierwise.cli import main

PROGRAM = (sys.executable, "-m", "tierwise")
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _import(tier: str, kind: str = "good", name: str = "spot", labels: str = "") -> str:
    Path("m.onnx").write_bytes(onnx_classifier(weights=weights_of(kind)))
    if not Path("data.npz").exists():
        save_data(Path("data.npz"))
    words = ["--tier", tier, "--name", name, "--data", "data.npz"]
    words += ["--labels", labels or ",".join(CLASSES)]
    output = f"{name}-{tier}-{kind}{bool(labels)}"
    assert main(["models", "import", "m.onnx", "--output", output, *words]) == 0
    return output


@contextmanager
def _up(*words: str) -> Iterator[tuple[dict[str, Any], subprocess.Popen[bytes]]]:
    with Path("up.json").open("wb") as output, Path("up.err").open("wb") as errors:
        program = subprocess.Popen(
            [*PROGRAM, "up", *words, "--port", "0", "--json"], stdout=output, stderr=errors
        )
    try:
        eventually_sync(lambda: program.poll() is not None or _told() is not None, 90)
        told = _told()
        assert told is not None, Path("up.err").read_text()
        yield told, program
    finally:
        if program.poll() is None:
            program.send_signal(signal.SIGINT)
        program.wait(60)


def _told() -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(Path("up.json").read_text())
    except ValueError:
        return None
    return found


def _ask(url: str, *words: str) -> dict[str, Any]:
    ran = subprocess.run(
        [*PROGRAM, "infer", "--url", url, "--data", "data.npz", "--json", *words],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def _left() -> list[psutil.Process]:
    here = str(Path.cwd())
    return [
        one
        for one in psutil.process_iter(["cmdline", "status"])
        if one.info["status"] != psutil.STATUS_ZOMBIE
        and any(here in part for part in one.info["cmdline"] or ())
    ]


@pytest.mark.parametrize(
    ("above", "top"), [((), "edge"), (("cloud",), "cloud"), (("regional",), "regional"),
                       (("regional", "cloud"), "regional")],
)  # fmt: skip
def test_hierarchies_of_every_height_answer_and_leave_nothing(
    above: tuple[str, ...], top: str
) -> None:
    words = ["--edge", _import("edge", "poor")]
    for tier in above:
        words += [f"--{tier}", _import(tier)]

    with _up(*words) as (told, program):
        assert len(told["tiers"]) == 1 + len(above)
        assert told["dashboard"].startswith("http://127.0.0.1:") == ("cloud" in above)
        answers = [_ask(told["url"], "--index", str(index)) for index in range(8)]
        program.send_signal(signal.SIGINT)
        assert program.wait(60) == 0

    assert all(one["label_name"] in CLASSES for one in answers)
    assert top in {one["tier"] for one in answers}
    assert _left() == []


def test_two_halves_of_one_model_are_a_hierarchy(capsys: pytest.CaptureFixture[str]) -> None:
    """What the head is unsure of climbs as its embedding, over a real broker, and is answered."""
    words = ["--data", "bundled:test", "--part", "0:800", "--tail-tier", "cloud"]
    for name in ("halves", "others"):
        split = ["models", "split", str(bundled_model("regional")), *words, "--output", name]
        assert main([*split, *(["--embedding", "FP16"] if name == "halves" else [])]) == 0
    pictures = read_examples("bundled:test").part(1000, 1012)
    np.savez("data.npz", images=pictures.inputs["image"], labels=pictures.labels)
    # So that all of them climb.
    manifest = Path("halves/head/manifest.json")
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "accept_at": 1.0}))
    capsys.readouterr()

    with _up("--edge", "halves/head", "--cloud", "halves/tail") as (told, program):
        answers = [
            _ask(told["url"], "--index", str(index), "--budget-ms", "5000") for index in range(12)
        ]
        program.send_signal(signal.SIGINT)
        assert program.wait(60) == 0

    assert {one["tier"] for one in answers} == {"cloud"}
    assert {one["provenance"][0]["forwarded"] for one in answers} == {"embedding"}
    rightly = [
        one["label"] == int(right) for one, right in zip(answers, pictures.labels, strict=True)
    ]
    assert sum(rightly) >= 9
    for tail, because in (("others/tail", "must agree on"), (bundled_model("cloud"), "must agree")):
        assert main(["up", "--edge", "halves/head", "--cloud", str(tail)]) == 3
        assert because in capsys.readouterr().err
    assert _left() == []


def test_halves_of_two_models_are_no_hierarchy(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", "bundled:test", "--tail-tier", "cloud"]
    for name, part in (("one", "0:800"), ("two", "0:900")):
        split = ["models", "split", str(bundled_model("regional")), *words, "--part", part]
        assert main([*split, "--output", name]) == 0
    capsys.readouterr()

    assert main(["up", "--edge", "one/head", "--cloud", "two/tail"]) == 3
    assert "both halves of one split" in capsys.readouterr().err


def test_a_tier_that_dies_ends_all_of_it() -> None:
    with _up("--edge", _import("edge"), "--cloud", _import("cloud")) as (_, program):
        (cloud,) = [
            one for one in psutil.Process(program.pid).children() if "cloud_tier" in one.cmdline()
        ]
        cloud.kill()
        assert program.wait(60) == 3

    assert "cloud-1 ended" in Path("up.err").read_text()
    assert _left() == []


def test_models_of_two_tasks_are_no_hierarchy(capsys: pytest.CaptureFixture[str]) -> None:
    edge = _import("edge")
    for other in (_import("cloud", name="other"), _import("cloud", labels="a,b,c")):
        assert main(["up", "--edge", edge, "--cloud", other]) == 3
        assert "must agree on" in capsys.readouterr().err
    assert main(["up", "--edge", _import("cloud")]) == 3
    assert "is for the tier cloud" in capsys.readouterr().err
    assert main(["up", "--edge", "nowhere"]) == 3
    assert "is not a folder" in capsys.readouterr().err


def test_a_policy_of_other_tiers_and_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    from model_zoo.catalog import bundled_policy  # noqa: PLC0415

    edge = _import("edge")
    assert main(["up", "--edge", edge, "--policy", str(bundled_policy())]) == 1
    assert "is for the tiers cloud, edge, regional" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["up", "--edge", edge, "--port", port]) == 3
    assert "in use" in capsys.readouterr().err
    Path("file").write_text("")
    assert main(["up", "--edge", edge, "--port", "0", "--state", "file"]) == 3


@pytest.mark.parametrize("words", [("--index", "9999"), ("--index", "-1")])
def test_an_example_that_is_not_there(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    save_data(Path("data.npz"), 30)

    assert main(["infer", "--data", "data.npz", *words]) == 1
    assert "--index goes from 0 to 29" in capsys.readouterr().err


def test_nobody_there_to_ask(capsys: pytest.CaptureFixture[str]) -> None:
    save_data(Path("data.npz"), 30)

    assert main(["infer", "--data", "data.npz", "--index", "1", "--url", "http://127.0.0.1:9"]) == 1
    assert "tierwise up" in capsys.readouterr().err
