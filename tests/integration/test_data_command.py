"""``tierwise data export``: what is in the dataset, what is not, and why."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.reviews import item, run
from runtime.adapters.decision_log import SqliteDecisionLog
from runtime.adapters.outbox_schema import FILE_NAME, SCHEMA
from runtime.adapters.review_queue import SqliteReviewQueue
from runtime.messages import Tensors
from runtime.ports import AuditRecord, ReviewItem
from tierwise.cli import main

Output = pytest.CaptureFixture[str]
PICTURE = np.array([[0.5, 1.5]], np.float32)
ALIKE = '[{"tier":"edge","label":1}]'


def queued(state: Path, *items: ReviewItem) -> None:
    with SqliteReviewQueue(state / "cloud") as queue:
        for one in items:
            assert run(queue.put(one, 5)) == "queued"


def say(state: Path, created_s: float, body: bytes) -> None:
    """Feedback that has arrived at the top."""
    connection = sqlite3.connect(state / "cloud" / FILE_NAME)
    connection.executescript(SCHEMA)
    connection.execute(
        "INSERT INTO received (id, origin, sender, kind, created_s, received_s, body, num_bytes)"
        " VALUES (hex(randomblob(8)), 'r/a', 'a', 'feedback', ?, 0, ?, 0)",
        (created_s, body),
    )
    connection.commit()
    connection.close()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    wide: Tensors = {"x": np.array([[1, 2, 3]], np.float32)}
    queued(
        state,
        item("hard", {"x": PICTURE}, wall_s=1.0, request_id="r1", answers=ALIKE),
        item("differs", {"x": 2 * PICTURE}, wall_s=2.0, request_id="r2"),
        item("said", {"x": 3 * PICTURE}, wall_s=3.0, request_id="r3", answers=ALIKE),
        item("wrong", {"x": PICTURE}, wall_s=4.0, request_id="r4", answers=ALIKE),
        item("stays", {"x": PICTURE}, wall_s=5.0, request_id="r5", residency="region"),
        item("batch", {"x": np.ones((2, 2), np.float32)}, wall_s=6.0, request_id="r6"),
        item("broken", {"x": PICTURE}, wall_s=7.0, request_id="r7", body=b"garbage"),
        item("wide", wide, wall_s=8.0, request_id="r8", answers=ALIKE),
        item("file", {"file": PICTURE}, wall_s=9.0, request_id="r9", answers=ALIKE),
        item("audited", {"x": PICTURE}, wall_s=10.0, request_id="r10", answers=ALIKE),
    )
    say(state, 5.0, json.dumps({"request_id": "r3", "label": 2, "comment": "an owl"}).encode())
    say(state, 1.0, json.dumps({"request_id": "r3", "label": 0}).encode())
    say(state, 1.0, json.dumps({"request_id": "r4", "is_correct": False}).encode())
    say(state, 1.0, b"garbage")
    with SqliteDecisionLog(state / "edge") as log:
        log.append(AuditRecord(10.0, "r10", "a", "p", "g", 0.5, "", agrees=False))
        log.append(AuditRecord(1.0, "r1", "a", "p", "g", 0.5, "", agrees=None))
    return state


def exported(state: Path, out: Path, capsys: Output, *words: str) -> dict[str, Any]:
    assert main(["data", "export", "--state", str(state), "--out", str(out), "--json", *words]) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    return shown


def test_examples_come_with_labels_weights_and_reasons(
    state: Path, tmp_path: Path, capsys: Output
) -> None:
    shown = exported(state, tmp_path / "out", capsys)

    assert shown["why"] == {"disagreement": 2, "hard": 2, "labelled": 1}
    assert shown["left_out"] == {"called_wrong": 1, "residency": 1, "unreadable": 3}
    assert shown["unreadable_feedback"] == 1
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [(one["item"], one["why"], one["label"]) for one in manifest["items"]] == [
        ("hard", "hard", 1),
        ("differs", "disagreement", 1),
        ("said", "labelled", 2),
        ("wide", "hard", 1),
        ("audited", "disagreement", 1),
    ]
    for shard in manifest["shards"]:
        contents = (tmp_path / "out" / shard["file"]).read_bytes()
        assert hashlib.sha256(contents).hexdigest() == shard["sha256"]
    with np.load(tmp_path / "out" / "data-00000.npz", allow_pickle=False) as first:
        assert np.array_equal(first["x"], np.concatenate([PICTURE, 2 * PICTURE, 3 * PICTURE]))
        assert first["labels"].tolist() == [1, 1, 2]
        assert first["weights"].tolist() == [0.5, 0.5, 1.0]
        assert first["items"].tolist() == [b"hard", b"differs", b"said"]
    places = {one["item"]: (one["shard"], one["row"]) for one in manifest["items"]}
    assert places["said"] == ("data-00000.npz", 2)
    assert places["wide"] == ("data-00001.npz", 0)


def test_the_same_records_give_the_same_bytes(state: Path, tmp_path: Path, capsys: Output) -> None:
    for name in ("a", "b"):
        exported(state, tmp_path / name, capsys)

    one, other = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("a", "b")
    )
    assert one == other


def test_a_dataset_that_stays_in_the_region_has_what_must_stay_there(
    state: Path, tmp_path: Path, capsys: Output
) -> None:
    shown = exported(state, tmp_path / "out", capsys, "--to", "region")

    assert "residency" not in shown["left_out"]
    assert shown["num_items"] == 6


def test_it_is_bounded_by_examples_and_bytes(state: Path, tmp_path: Path, capsys: Output) -> None:
    few = exported(state, tmp_path / "few", capsys, "--max-items", "2")
    small = exported(state, tmp_path / "small", capsys, "--max-bytes", "1")

    assert few["why"] == {"disagreement": 1, "labelled": 1}
    assert small["num_items"] == 0
    assert small["left_out"]["over_limit"] == 8


def test_nothing_is_written_over(state: Path, tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    before = sorted(tmp_path.iterdir())

    assert main(["data", "export", "--state", str(state), "--out", str(tmp_path / "out")]) == 3

    assert "there already" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_without_records_it_says_where_they_come_from(tmp_path: Path, capsys: Output) -> None:
    assert main(["data", "export", "--state", str(tmp_path), "--out", str(tmp_path / "o")]) == 3
    assert "no review queue" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_a_limit_is_above_0(number: str, capsys: Output) -> None:
    assert main(["data", "export", "--out", "o", "--max-items", number]) == 2
    assert "--max-items" in capsys.readouterr().err


def test_it_is_told_in_words(state: Path, tmp_path: Path, capsys: Output) -> None:
    assert main(["data", "export", "--state", str(state), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "5 examples (2 disagreement, 2 hard, 1 labelled) in 3 files" in said
    assert "left out: 1 (residency)" in said
