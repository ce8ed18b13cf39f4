"""``tierwise review`` and ``tierwise policy fit --review``."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.labelled import sampled
from fakes.reviews import item, run
from model_zoo.policies.prediction_files import write_predictions
from runtime.adapters.policy_file import read_policy
from runtime.adapters.review_queue import SqliteReviewQueue
from runtime.ports import ReviewItem
from tierwise.cli import main
from tierwise.cli.policy import review_terms
from tierwise.review_command import due, duration

Output = pytest.CaptureFixture[str]
PICTURE = np.array([[0.5, 1.5]], np.float32)


def told(capsys: Output, *words: object, code: int = 0) -> str:
    assert main([*map(str, words)]) == code
    said = capsys.readouterr()
    return said.err if code else said.out


def waiting(folder: Path, *items: ReviewItem) -> Path:
    with SqliteReviewQueue(folder / "cloud") as queue:
        for one in items:
            assert run(queue.put(one, 5)) == "queued"
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    now_s = time.time()
    words = np.array([[b"abc"]], object)
    return waiting(
        tmp_path / "state",
        item("new", {"x": PICTURE, "words": words}, request_id="r2", wall_s=now_s - 30),
        item("old", request_id="r1\x1b[2J", wall_s=now_s - 7200, due_s=now_s - 3600),
        item("other", request_id="r2", wall_s=now_s - 10),
    )


def test_what_waits_is_listed_oldest_first(state: Path, capsys: Output) -> None:
    lines = told(capsys, "review", "list", "--state", state).splitlines()

    assert lines[0].split()[:2] == ["ITEM", "REQUEST"]
    assert [line.split()[0] for line in lines[1:4]] == ["old", "new", "other"]
    assert "2h" in lines[1]
    assert "late" in lines[1]
    assert "in 59s" in lines[2] or "in 1m" in lines[2]
    assert "\x1b" not in lines[1]
    assert lines[4] == "3 waiting, 1 of them longer than promised"


def test_the_list_is_there_as_json(state: Path, capsys: Output) -> None:
    items: list[dict[str, Any]] = json.loads(
        told(capsys, "review", "list", "--state", state, "--json")
    )["waiting"]

    assert [one["item"] for one in items] == ["old", "new", "other"]
    assert [one["is_late"] for one in items] == [True, False, False]
    assert items[0]["answers"][1] == {"tier": "cloud", "label": 1, "score": 0.5}
    assert "body" not in items[0]


def test_one_item_is_shown_and_its_inputs_saved(
    state: Path, capsys: Output, tmp_path: Path
) -> None:
    output = tmp_path / "inputs.npz"

    text = told(capsys, "review", "show", "new", "--state", state, "--save", output)
    plain = json.loads(told(capsys, "review", "show", "new", "--state", state, "--json"))

    assert "label_name:     dog" in text
    assert f"written: {output}" in text
    assert plain["inputs"]["x"] == ["float32", [1, 2]]
    with np.load(output) as saved:
        assert saved["x"].tolist() == PICTURE.tolist()
        assert saved["words"].tolist() == [[b"abc"]]


@pytest.mark.parametrize(
    ("name", "says"),
    [("nobody", "nothing of this id waits"), ("r2", "2 items have this id: new, other")],
)
def test_an_id_that_is_not_of_one_item_is_told(
    state: Path, capsys: Output, name: str, says: str
) -> None:
    assert says in told(capsys, "review", "show", name, "--state", state, code=3)


def test_where_inputs_cannot_be_saved_it_is_told(state: Path, capsys: Output) -> None:
    words = ["review", "show", "new", "--state", state, "--save", state / "no" / "inputs.npz"]

    assert "cannot write" in told(capsys, *words, code=3)


def test_without_a_queue_it_is_told_where_they_come_from(tmp_path: Path, capsys: Output) -> None:
    assert "no review queue" in told(capsys, "review", "list", "--state", tmp_path, code=3)


def test_an_empty_queue_has_nothing_waiting(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "reviews.sqlite").touch()

    assert main(["review", "list", "--state", str(tmp_path)]) == 0
    assert "nothing waits for review" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "expected"), [(-1, "0s"), (59.9, "59s"), (61, "1m"), (7200, "2h"), (2e5, "2d")]
)
def test_times_are_told_in_their_largest_unit(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_what_is_due_is_told_from_now() -> None:
    assert (due(61), due(-61)) == ("in 1m", "1m late")


@pytest.mark.parametrize("text", ["", "x", "1:2:3", "1:2:0.9:4", "-1", "1:", "1:-2"])
def test_terms_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        review_terms(text)


class TestFit:
    def fit(self, folder: Path, capsys: Output, *words: object) -> str:
        for seed, name in enumerate(("train", "cal"), start=1):
            write_predictions(folder / f"{name}.npz", sampled(seed, 1500))
        return told(
            capsys, "policy", "fit", "--train", folder / "train.npz", "--cal", folder / "cal.npz",
            "--output", folder / "policy.json", *words,
        )  # fmt: skip

    def test_it_says_what_people_would_see_and_cost(self, tmp_path: Path, capsys: Output) -> None:
        text = self.fit(tmp_path, capsys, "--max-loss", 0.03, "--review", "2:600:0.99")

        (gear,) = read_policy(tmp_path / "policy.json").policy.gears
        assert f"any: {gear.promise.reviewed:.2%} of requests also go to a person" in text
        assert "2 a review, right in 99%, promised within 10m" in text
        write_predictions(tmp_path / "fresh.npz", sampled(3, 800))
        judged = told(
            capsys, "policy", "eval", "--dataset", tmp_path / "fresh.npz", "--policy",
            tmp_path / "policy.json",
        )  # fmt: skip
        assert "of requests also go to a person" in judged
        shown = json.loads(told(capsys, "policy", "show", tmp_path / "policy.json", "--json"))
        assert shown["gears"][0]["review"] == {
            "price": 2.0, "latency_ms": 600_000.0, "accuracy": 0.99,
        }  # fmt: skip

    def test_without_a_certificate_there_are_no_reviews(
        self, tmp_path: Path, capsys: Output
    ) -> None:
        text = self.fit(tmp_path, capsys, "--max-loss", 0.0, "--delta", 1e-9, "--review", "2")

        assert "any: no reviews" in text
