"""Anybody's labelled data: read, refused by name, divided so that no part knows another."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_zoo.idx import DataInvalidError, DataMissingError
from model_zoo.made_up import made_up_rows
from model_zoo.task_data import (
    KINDS,
    PARTS,
    Kind,
    Part,
    Task,
    checked,
    divided,
    read_part,
    read_task,
    windows_of,
    without_repeats,
    write_task,
)
from model_zoo.task_files import read_rows
from model_zoo.text_codes import codes_of
from runtime.messages import TensorSpec

NAMES = ("a", "b", "c")


def part_of(num: int, seed: int = 0) -> Part:
    random = np.random.default_rng(seed)
    values = random.normal(size=(num, 2)).astype(np.float32)
    return Part(values, random.integers(0, 3, num))


def task_of(part: Part) -> Task:
    return Task(
        name="some",
        kind="tabular",
        labels=NAMES,
        input=TensorSpec("values", "FP32", (-1, *part.inputs.shape[1:])),
        data_set="made up",
        licence="none",
        seed=1,
    )


@given(st.integers(30, 400), st.integers(0, 1000))
def test_parts_share_nothing_lose_nothing_and_are_dealt_by_seed(num: int, seed: int) -> None:
    part = part_of(num, seed)

    parts, again = divided(part, seed), divided(part, seed)

    rows = [row.tobytes() for one in parts.values() for row in one.inputs]
    assert sorted(rows) == sorted(row.tobytes() for row in part.inputs)
    assert list(parts) == list(PARTS)
    for name, one in parts.items():
        assert np.array_equal(one.inputs, again[name].inputs)
        assert np.array_equal(one.labels, again[name].labels)


def test_every_part_has_its_share_of_every_class() -> None:
    parts = divided(part_of(3000), 1)

    whole = np.bincount(part_of(3000).labels)
    for name, share in zip(PARTS, (0.5, 0.15, 0.25, 0.1), strict=True):
        assert np.abs(np.bincount(parts[name].labels) - share * whole).max() <= 1


def test_equal_examples_are_taken_once() -> None:
    part = part_of(50)
    twice = Part(np.concatenate([part.inputs] * 2), np.concatenate([part.labels] * 2))

    once = without_repeats(twice)

    assert np.array_equal(once.inputs, part.inputs)
    assert sum(len(one.labels) for one in divided(twice, 1).values()) == 50


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda part: Part(part.inputs[:-1], part.labels), "99 examples, but 100 labels"),
        (lambda part: Part(part.inputs * np.float32(np.inf), part.labels), "number 1;"),
        (lambda part: Part(part.inputs, part.labels + 1), "labels must be 0 .. 2"),
        (lambda part: Part(part.inputs, part.labels - 1), "labels must be 0 .. 2"),
        (lambda part: Part(part.inputs, part.labels * 0), "there is one"),
        (lambda part: Part(part.inputs[:0], part.labels[:0]), "two classes"),
        (lambda part: Part(part.inputs[:9], part.labels[:9]), "every class needs 8"),
    ],
    ids=["lengths", "infinite", "above", "below", "one class", "empty", "few"],
)
def test_data_that_nothing_can_be_learned_from_are_refused(
    change: Callable[[Part], Part], says: str
) -> None:
    part = change(part_of(100))

    with pytest.raises(DataInvalidError, match=says):
        checked(part.inputs, part.labels, NAMES, "mine.npz")


def test_a_missing_value_is_counted_and_placed() -> None:
    part = part_of(100)
    part.inputs[[41, 77], 1] = np.nan

    with pytest.raises(DataInvalidError, match=r"mine.csv: 2 examples .* number 42"):
        checked(part.inputs, part.labels, NAMES, "mine.csv")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    part = part_of(100)

    write_task(tmp_path, task_of(part), {"train": part})

    assert read_task(tmp_path) == task_of(part)
    found = read_part(tmp_path, read_task(tmp_path), "train")
    assert np.array_equal(found.inputs, part.inputs)
    assert np.array_equal(found.labels, part.labels)


def test_what_was_not_prepared_or_is_damaged_is_named(tmp_path: Path) -> None:
    part = part_of(100)
    with pytest.raises(DataMissingError, match=r"run prepare.py first"):
        read_task(tmp_path)
    write_task(tmp_path, task_of(part), {"train": part})
    with pytest.raises(DataMissingError, match=r"test.npz is not there"):
        read_part(tmp_path, task_of(part), "test")
    with pytest.raises(DataInvalidError, match="the task of"):
        read_part(tmp_path, task_of(Part(np.zeros((1, 5), np.float32), part.labels)), "train")
    (tmp_path / "train.npz").write_bytes((tmp_path / "train.npz").read_bytes()[:60])
    with pytest.raises(DataInvalidError, match="cannot be read"):
        read_part(tmp_path, task_of(part), "train")
    (tmp_path / "task.json").write_text('{"name": 1}')
    with pytest.raises(DataInvalidError, match="describes no task"):
        read_task(tmp_path)


def test_windows_share_what_their_step_lets_them() -> None:
    series = np.arange(10.0)[:, None]

    assert windows_of(series, 4, 3)[:, :, 0].tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert windows_of(series, 11, 1).shape == (0, 11, 1)
    with pytest.raises(DataInvalidError, match="at least 1"):
        windows_of(series, 0, 1)


def saved(path: Path, **arrays: object) -> Path:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    path.write_bytes(buffer.getvalue())
    return path


@pytest.mark.parametrize(
    ("kind", "arrays", "shape"),
    [
        ("tabular", {"values": np.ones((3, 4)), "labels": ["x", "y", "x"]}, (3, 4)),
        ("series", {"series": np.ones((3, 9, 2), np.int16), "labels": [0, 5, 0]}, (3, 9, 2)),
        ("picture", {"pictures": np.ones((3, 8, 8), np.uint8), "labels": [0, 5, 0]}, (3, 8, 8)),
        ("text", {"texts": ["one", "two", "three"], "labels": [0, 5, 0]}, (3, 48)),
    ],
)
def test_arrays_of_each_kind_are_read(
    tmp_path: Path, kind: Kind, arrays: dict[str, object], shape: tuple[int, ...]
) -> None:
    rows = read_rows(saved(tmp_path / "mine.npz", **arrays), kind)

    assert rows.inputs.shape == shape
    assert rows.labels.tolist() == [0, 1, 0]
    assert rows.names in (("x", "y"), ("0", "5"))
    assert rows.spec(kind).shape == (-1, *shape[1:])


def test_tables_of_each_kind_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"

    path.write_text("label,height,width\n10,1,2\n9,3.5,-4e1\n")
    tabular = read_rows(path, "tabular")
    path.write_text('\ufefftext,label\n"Hej, du",da\nHello,en\n')
    text = read_rows(path, "text")
    lines = [f"{one},{label},{at},0" for one, label in (("r", "p"), ("s", "q")) for at in range(5)]
    path.write_text("\n".join(["recording,label,x,y", *lines]))
    series = read_rows(path, "series", window=2)

    assert tabular.inputs.tolist() == [[1, 2], [3.5, -40]]
    assert tabular.names == ("9", "10"), "numbers are in the order of numbers"
    assert text.names == ("da", "en")
    assert series.inputs[:, :, 0].tolist() == [[0, 1], [2, 3], [0, 1], [2, 3]]
    assert series.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        ("tabular", "", "is empty"),
        ("tabular", "height\n1\n", "no label"),
        ("tabular", "label\n1\n", "no column of numbers"),
        ("tabular", "label,x,x\n1,2,3\n", "a column twice"),
        ("tabular", "label,x\n1\n", "line 2: 1 values, not 2"),
        ("tabular", "label,x\n1,tall\n", "line 2: x is 'tall', no number"),
        ("text", "label,words\n1,a\n", "no text"),
        ("series", "label,x\n1,2\n", "no recording"),
        ("series", "label,recording,x\np,r,1\nq,r,2\n", "several labels"),
        ("series", "label,recording,x\np,r,1\n", "as long as a window"),
        ("picture", "label,x\n1,2\n", "read from an .npz"),
    ],
)
def test_tables_that_are_not_as_documented_are_refused(
    tmp_path: Path, kind: Kind, text: str, says: str
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)

    with pytest.raises(DataInvalidError, match=says):
        read_rows(path, kind)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"labels": [1]}, "no values"),
        ({"values": np.ones((2, 2))}, "no labels"),
        ({"values": np.ones((2, 2)), "labels": [1]}, "a label each"),
        ({"values": np.ones((2, 2, 2)), "labels": [1, 2]}, "needs 2 axes"),
        ({"values": np.ones((2, 2)), "labels": [1.5, 2]}, "whole numbers or texts"),
        ({"values": [["a", "b"]], "labels": [1]}, "cannot be <U1"),
    ],
    ids=["no values", "no labels", "lengths", "axes", "float labels", "texts"],
)
def test_arrays_that_are_not_as_documented_are_refused(
    tmp_path: Path, arrays: dict[str, object], says: str
) -> None:
    with pytest.raises(DataInvalidError, match=says):
        read_rows(saved(tmp_path / "mine.npz", **arrays), "tabular")


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    damaged, other = tmp_path / "mine.npz", tmp_path / "mine.xlsx"
    damaged.write_bytes(b"PK but no archive")
    other.write_bytes(b"")
    latin = tmp_path / "mine.csv"
    latin.write_bytes(b"label,text\n1,\xe9\n")

    with pytest.raises(DataInvalidError, match="cannot be read"):
        read_rows(damaged, "tabular")
    with pytest.raises(DataInvalidError, match=r"a .csv or an .npz"):
        read_rows(other, "tabular")
    with pytest.raises(DataInvalidError, match="cannot be read"):
        read_rows(latin, "text")
    with pytest.raises(DataMissingError, match="is not there"):
        read_rows(tmp_path / "nowhere.csv", "text")
    with pytest.raises(DataInvalidError, match="cannot be read"):
        read_rows(saved(tmp_path / "p.npz", values=np.array([{}]), labels=[1]), "tabular")


def test_an_empty_place_of_a_table_is_a_missing_value(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(
        "label,x\n" + "\n".join(f"{at % 2},{'' if at == 5 else at}" for at in range(40))
    )

    rows = read_rows(path, "tabular")

    with pytest.raises(DataInvalidError, match=r"1 examples .* number 6"):
        checked(rows.inputs, rows.labels, rows.names, "mine.csv")


@pytest.mark.parametrize("kind", KINDS)
def test_made_up_data_are_the_same_each_time_and_usable(kind: Kind) -> None:
    one, two = made_up_rows(kind, 300), made_up_rows(kind, 300)

    assert np.array_equal(one.inputs, two.inputs)
    assert len(checked(one.inputs, one.labels, one.names, "made up").labels) == 300


@given(st.lists(st.text()), st.integers(1, 60))
def test_codes_are_code_points_and_then_zeros(texts: list[str], length: int) -> None:
    codes = codes_of(texts, length)

    assert codes.shape == (len(texts), length)
    assert codes.dtype == np.int32
    is_zero = codes == 0
    assert (is_zero[:, :-1] <= is_zero[:, 1:]).all(), "behind the end, nothing begins again"
    assert np.array_equal(codes, codes_of([f"  {text}\n" for text in texts], length))


def test_texts_that_look_alike_have_the_same_codes() -> None:
    composed, apart, loud = codes_of(["Été  là", "E\u0301te\u0301 la\u0300\0", "ÉTÉ LÀ"], 12)

    assert np.array_equal(composed, apart)
    assert np.array_equal(composed, loud)
    assert "".join(map(chr, composed)).strip("\0") == " été là "
    assert codes_of(["", " \0\n"], 4).tolist() == [[0] * 4] * 2
    with pytest.raises(ValueError, match="room"):
        codes_of(["a"], 0)
