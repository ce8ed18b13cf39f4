"""Labelled predictions: what is read is whole, and what is not is refused with a remedy."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.labelled import sampled
from model_zoo.policies import prediction_files as module
from model_zoo.policies.prediction_files import (
    MAX_LABELS,
    NEEDED,
    read_predictions,
    write_predictions,
)
from model_zoo.policies.predictions import check, check_disjoint
from runtime.errors import PolicyError

Arrays = dict[str, npt.NDArray[Any]]


def published(num_services: int = 3) -> Arrays:
    """The least that a file holds; six examples of two classes, all right only at the top."""
    label = np.array([0, 1, 0, 1, 0, 1], np.int16)
    predicted = np.tile(label, (num_services, 1))
    predicted[:-1, 0] ^= 1
    return {
        "label": label,
        "service": np.array([f"service {index}" for index in range(num_services)], np.str_),
        "price": np.linspace(0.1, 1, num_services),
        "predicted": predicted,
        "confidence": np.tile(np.linspace(0.4, 0.9, 6), (num_services, 1)),
    }


def saved(folder: Path, arrays: Arrays, name: str = "predictions.npz") -> Path:
    path = folder / name
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return path


def collected(folder: Path, **changed: npt.NDArray[Any]) -> Path:
    """A file that names its tiers, with some of its arrays changed."""
    path = folder / "collected.npz"
    write_predictions(path, replace(sampled(1, 20), service_ms=np.ones((3, 20))))
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return saved(folder, arrays | changed, "changed.npz")


def changed(name: str, index: Any, value: float) -> Arrays:
    """The published arrays with one value changed."""
    arrays = published()
    copy = arrays[name].astype(np.float64 if isinstance(value, float) else arrays[name].dtype)
    copy[index] = value
    return arrays | {name: copy}


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    written = replace(sampled(2, 50), service_ms=np.full((3, 50), 4.5))

    write_predictions(tmp_path / "new" / "p.npz", written)
    read = read_predictions(tmp_path / "new" / "p.npz")

    assert (read.tiers, read.label_names) == (written.tiers, written.label_names)
    assert (read.models, read.source) == (written.models, "p.npz")
    assert read.digest == written.digest
    for name in ("label", "price", "predicted", "score", "example_id", "service_ms"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))


def test_predictions_of_unknown_models_stay_so_when_written(tmp_path: Path) -> None:
    written = replace(sampled(2, 50), models={})

    write_predictions(tmp_path / "p.npz", written)

    assert read_predictions(tmp_path / "p.npz").models == {}


def test_a_published_file_needs_no_more_than_the_needed_arrays(tmp_path: Path) -> None:
    read = read_predictions(saved(tmp_path, published()))

    assert read.tiers == ("edge", "regional", "cloud")
    assert read.label_names == ("0", "1")
    assert read.models == {}
    assert read.service_ms is None
    assert len(set(read.example_id.tolist())) == read.num_examples == 6
    np.testing.assert_allclose(read.relative_price, [0.1, 0.55, 1])


def test_texts_may_be_stored_as_bytes(tmp_path: Path) -> None:
    path = collected(tmp_path, service=np.array([b"a", b"b", b"c"]))

    assert read_predictions(path).tiers == ("a", "b", "c")


def test_examples_may_be_told_apart_by_texts_or_numbers(tmp_path: Path) -> None:
    texts = published() | {"example_id": np.array(list("abcdeé"))}
    numbers = published() | {"example_id": np.arange(6)}

    assert read_predictions(saved(tmp_path, texts)).example_id[-1] == "é".encode()
    assert read_predictions(saved(tmp_path, numbers)).example_id[-1] == b"5"


@pytest.mark.parametrize(
    ("right", "rows", "tiers"),
    [
        ((1, 2, 3, 6), [0, 1, 3], ("edge", "regional", "cloud")),
        ((1, 2, 6, 3), [0, 1, 2], ("edge", "regional", "cloud")),
        ((1, 6, 2, 3), [0, 1], ("edge", "cloud")),
        ((6, 1, 2, 3), [1, 0], ("edge", "cloud")),
        ((6, 1), [0, 1], ("edge", "cloud")),
    ],
)
def test_the_most_accurate_service_is_the_top_by_default(
    tmp_path: Path, right: tuple[int, ...], rows: list[int], tiers: tuple[str, ...]
) -> None:
    arrays = published(len(right))
    arrays["predicted"] = np.tile(arrays["label"], (len(right), 1))
    for service, count in enumerate(right):
        arrays["predicted"][service, count:] ^= 1

    read = read_predictions(saved(tmp_path, arrays))

    assert read.tiers == tiers
    np.testing.assert_array_equal(read.price, arrays["price"][rows])
    np.testing.assert_array_equal(read.predicted, arrays["predicted"][rows])


def test_services_are_chosen_in_the_order_asked_for(tmp_path: Path) -> None:
    arrays = published(5)

    read = read_predictions(saved(tmp_path, arrays), services=[4, 0, 2, 3])

    assert read.tiers == ("edge", "regional", "regional1", "cloud")
    np.testing.assert_array_equal(read.price, arrays["price"][[4, 0, 2, 3]])


def test_a_collected_file_keeps_all_its_tiers_and_what_was_chosen_of_them(tmp_path: Path) -> None:
    path = collected(tmp_path)

    assert read_predictions(path).tiers == ("edge", "regional", "cloud")
    two = read_predictions(path, services=[0, 2])
    assert two.tiers == ("edge", "cloud")
    assert two.models == {"edge": f"{1:064x}", "cloud": f"{3:064x}"}
    assert two.service_ms is not None
    assert two.service_ms.shape == (2, 20)


@pytest.mark.parametrize("services", [[], [0], [0, 0], [0, 9], [-1, 0]])
def test_services_that_are_not_there_are_refused(tmp_path: Path, services: list[int]) -> None:
    with pytest.raises(PolicyError, match=r"--tiers takes .* 0 service 0, 1 service 1"):
        read_predictions(saved(tmp_path, published()), services=services)


@given(st.permutations(range(30)))
def test_the_digest_does_not_depend_on_the_order(order: list[int]) -> None:
    examples = sampled(3, 30)

    assert examples.take(np.array(order)).digest == examples.digest


def test_the_digest_depends_on_examples_and_labels() -> None:
    examples = sampled(3, 30)
    other_labels = replace(examples, label=(examples.label + 1) % 4)

    digests = {one.digest for one in (examples, other_labels, examples.take(np.arange(29)))}

    assert len(digests) == 3


def test_some_of_the_examples_are_the_same_in_every_array() -> None:
    examples = replace(sampled(3, 30), service_ms=np.arange(90.0).reshape(3, 30))

    some = examples.take(np.array([7, 2]))

    assert some.num_examples == 2
    np.testing.assert_array_equal(some.correct, examples.correct[:, [7, 2]])
    np.testing.assert_array_equal(some.score, examples.score[:, [7, 2]])
    np.testing.assert_array_equal(some.example_id, examples.example_id[[7, 2]])
    assert some.service_ms is not None
    np.testing.assert_array_equal(some.service_ms[1], [37, 32])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="is not there; make it with"):
        read_predictions(tmp_path / "none.npz")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        read_predictions(tmp_path)


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.arange(3))

    with pytest.raises(PolicyError, match=r"is no \.npz"):
        read_predictions(tmp_path / "one.npy")


def test_pickled_objects_are_never_opened(tmp_path: Path) -> None:
    path = saved(tmp_path, published() | {"label": np.array([object()] * 6)})

    with pytest.raises(PolicyError, match="allow_pickle=False"):
        read_predictions(path)


@pytest.mark.parametrize("contents", [b"", b"PK\x03\x04", b"\x93NUMPY", b"text", b"\x80\x04."])
def test_what_is_no_archive_is_refused(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "p.npz"
    path.write_bytes(contents)

    with pytest.raises(PolicyError, match=r"\.npz"):
        read_predictions(path)


def test_a_member_that_is_no_array_counts_as_missing(tmp_path: Path) -> None:
    path = saved(tmp_path, {k: v for k, v in published().items() if k != "label"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("label.npy", b"no array at all")

    with pytest.raises(PolicyError, match="has no label"):
        read_predictions(path)


def test_an_archive_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, published())
    monkeypatch.setattr(module, "MAX_UNPACKED_BYTES", 500)

    with pytest.raises(PolicyError, match="bytes unpacked, over 500"):
        read_predictions(path)


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_array_is_named(tmp_path: Path, name: str) -> None:
    arrays = published()
    del arrays[name]

    with pytest.raises(PolicyError, match=f"has no {name}; make it with"):
        read_predictions(saved(tmp_path, arrays))


REFUSED: list[tuple[str, Arrays, str]] = [
    ("fewer labels", {"label": np.array([0, 1])}, "3 services and"),
    ("labels in two dimensions", {"label": np.zeros((6, 2), np.int64)}, "3 services and"),
    ("one label that is no list", {"label": np.array(1)}, "3 services and"),
    ("fewer prices", {"price": np.ones(2)}, "3 services and"),
    ("fewer services", {"service": np.array(["a", "b"])}, "2 services and"),
    ("service is no list", {"service": np.array("a")}, "service of .* list of texts"),
    ("service is numbers", {"service": np.arange(3)}, "service of .* list of texts"),
    ("service is half a character", {"service": np.array(["\ud800"] * 3)}, "list of texts"),
    ("service is no text", {"service": np.array([b"\xff"] * 3)}, "list of texts"),
    ("other predictions", {"predicted": np.zeros((3, 5), np.int64)}, "predicted is"),
    ("other confidences", {"confidence": np.zeros((3, 6, 1))}, "confidence"),
    ("confidence is texts", {"confidence": np.full((3, 6), "x")}, "must be numbers"),
    ("confidence is complex", {"confidence": np.full((3, 6), 1j)}, "must be numbers"),
    ("price is a text", {"price": np.array(["1", "2", "3"])}, "must be numbers"),
    ("labels are fractions", {"label": np.linspace(0, 1, 6)}, "must be class indices"),
    ("labels are infinite", {"label": np.full(6, np.inf)}, "must be class indices"),
    ("labels are not numbers", {"label": np.full(6, np.nan)}, "must be class indices"),
    ("labels are texts", {"label": np.full(6, "cat")}, "must be class indices"),
    ("labels are beyond counting", {"label": np.full(6, 2**63, np.uint64)}, "class indices"),
    ("labels are too many", {"label": np.arange(6) + MAX_LABELS}, "at most 65536 can be"),
    ("classes are too few", {"label_names": np.array(["cat"])}, "one class only"),
    ("no class but one is known", {"label_names": np.array(["a", "b"]), "label": np.full(6, 1)},
     "all examples are of one class"),
    ("ids of others", {"example_id": np.arange(5)}, "example_id must be"),
    ("ids are fractions", {"example_id": np.linspace(0, 1, 6)}, "example_id must be"),
    ("ids are half a character", {"example_id": np.full(6, "\ud800")}, "list of texts"),
    ("times of others", {"service_ms": np.ones((2, 6))}, "service_ms must be"),
    ("a negative time", {"service_ms": np.full((3, 6), -1)}, "service_ms must be"),
    ("a time that is no number", {"service_ms": np.full((3, 6), np.nan)}, "service_ms must be"),
    ("a time that is a text", {"service_ms": np.full((3, 6), "x")}, "must be numbers"),
    ("fewer digests", {"model_digest": np.array(["a"])}, "1 model digests for 3 services"),
    ("names that no tier can have", {"model_digest": np.full(3, "a")}, "the tiers are"),
    ("a label is missing", changed("label", 2, -1), "1 examples have no label; label them"),
    ("a label of another class", changed("label", 2, 7) | {"label_names": np.array(["a", "b"])},
     "label 7 of 2 classes"),
    ("an answer of no class", changed("predicted", (0, 1), -1), "1 answers are none of the 2"),
    ("an answer of another class",
     changed("predicted", (1, 1), 5) | {"label_names": np.array(["a", "b"])},
     "1 answers are none of the 2"),
    ("a negative price", changed("price", 0, -1.0), "a price is negative or not a number"),
    ("a price that is no number", changed("price", 1, np.nan), "negative or not a number"),
    ("an infinite price", changed("price", 2, np.inf), "negative or not a number"),
    ("a free top tier", changed("price", 2, 0.0), "the top tier is free"),
    ("a top tier that is all but free", changed("price", 2, 5e-324), "all but free"),
    ("a score that is no number", changed("confidence", (1, 3), np.nan), "1 scores of regional"),
    ("an infinite score", changed("confidence", (0, 3), -np.inf), "1 scores of edge are not fin"),
    ("constant scores", changed("confidence", 0, 0.5), "the score of edge is always 0.5"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "why"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_no_policy_can_be_fitted_on_is_refused(
    tmp_path: Path, changes: Arrays, why: str
) -> None:
    path = saved(tmp_path, published() | changes)

    with pytest.raises(PolicyError, match=why):
        read_predictions(path, services=None if "model_digest" in changes else [0, 1, 2])


@pytest.mark.parametrize("with_names", [False, True])
def test_an_empty_file_is_refused(tmp_path: Path, with_names: bool) -> None:
    arrays = published()
    empty: Arrays = {
        "label": np.empty(0, np.int64),
        "predicted": np.empty((3, 0), np.int64),
        "confidence": np.empty((3, 0)),
    }
    names: Arrays = {"label_names": np.array(["a", "b"])} if with_names else {}

    with pytest.raises(PolicyError, match="is empty"):
        read_predictions(saved(tmp_path, arrays | empty | names))


@pytest.mark.parametrize("num_services", [0, 1])
def test_one_tier_is_no_cascade(tmp_path: Path, num_services: int) -> None:
    with pytest.raises(PolicyError, match=f"{num_services} tiers; between 2 and 6"):
        read_predictions(saved(tmp_path, published(num_services)))


def test_more_tiers_than_a_policy_can_name_are_refused(tmp_path: Path) -> None:
    arrays = published(7) | {
        "service": np.array(list("abcdefg")),
        "model_digest": np.full(7, "digest"),
    }

    with pytest.raises(PolicyError, match="7 tiers; between 2 and 6"):
        read_predictions(saved(tmp_path, arrays))


def test_a_tier_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="a tier is there twice in a, b, a"):
        read_predictions(collected(tmp_path, service=np.array(["a", "b", "a"])))


def test_no_examples_are_refused() -> None:
    with pytest.raises(PolicyError, match="is empty"):
        check(sampled(1, 10).take(np.empty(0, np.int64)))


def test_the_top_tier_needs_no_score() -> None:
    examples = sampled(1, 20)
    examples.score[-1] = np.nan

    check(examples)


def test_disjoint_splits_of_one_kind_are_accepted() -> None:
    examples = sampled(1, 40)

    check_disjoint(examples.take(np.arange(20)), examples.take(np.arange(20, 40)))


def test_splits_that_share_examples_are_refused() -> None:
    examples = sampled(1, 40)

    with pytest.raises(PolicyError, match="5 examples are both in"):
        check_disjoint(examples.take(np.arange(25)), examples.take(np.arange(20, 40)))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"tiers": ("edge", "metro", "cloud")}, "train is of .* calibration of"),
        ({"label_names": ("a", "b", "c", "d")}, "other classes"),
        ({"models": {"edge": "old"}}, r"other models \(edge, regional, cloud\)"),
    ],
)
def test_splits_of_different_kinds_are_refused(changes: dict[str, Any], why: str) -> None:
    train, calibration = sampled(1, 20), sampled(2, 20)

    with pytest.raises(PolicyError, match=why):
        check_disjoint(train, replace(calibration, **changes))


def archived(arrays: Arrays, *, compressed: bool) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


INTACT = [archived(published(), compressed=compressed) for compressed in (False, True)]
FUZZED = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def is_read_or_refused(path: Path) -> bool:
    """Whether it was read; any other error than the refusal goes through."""
    try:
        read_predictions(path)
    except PolicyError:
        return False
    return True


@FUZZED
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "p.npz"
    path.write_bytes(contents)

    assert not is_read_or_refused(path)


@pytest.mark.filterwarnings("ignore")
@FUZZED
@given(st.data())
def test_damaged_archives_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    contents = bytearray(data.draw(st.sampled_from(INTACT)))
    places = st.integers(0, len(contents) - 1)
    for place, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        contents[place] = byte
    path = tmp_path / "p.npz"
    path.write_bytes(contents)

    is_read_or_refused(path)


@FUZZED
@given(st.data())
def test_truncated_archives_are_refused(tmp_path: Path, data: st.DataObject) -> None:
    contents = data.draw(st.sampled_from(INTACT))
    path = tmp_path / "p.npz"
    path.write_bytes(contents[: data.draw(st.integers(0, len(contents) - 1))])

    assert not is_read_or_refused(path)


@pytest.mark.filterwarnings("ignore")
@FUZZED
@given(st.sampled_from(NEEDED), st.binary(max_size=120), st.booleans())
def test_members_with_hostile_headers_are_refused(
    tmp_path: Path, name: str, header: bytes, is_framed: bool
) -> None:
    path = saved(tmp_path, {k: v for k, v in published().items() if k != name})
    text = header.ljust(118)[:118]
    framed = b"\x93NUMPY\x01\x00\x76\x00" + text
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{name}.npy", framed if is_framed else b"\x93NUMPY" + header)

    assert not is_read_or_refused(path)


@pytest.mark.filterwarnings("ignore")
@FUZZED
@given(
    st.sampled_from(NEEDED),
    st.sampled_from(["<f8", "<i8", "<U9", "|O", "V4", "<M8[s]", "<c16", "|b1", "[('a','<i4')]"]),
    st.lists(st.sampled_from([0, 1, 2, 3, 6, -1, 2**40, 2**64, 10**30]), max_size=3),
)
def test_arrays_of_hostile_shapes_are_refused(
    tmp_path: Path, name: str, kind: str, shape: list[int]
) -> None:
    arrays = {k: v for k, v in published().items() if k != name}
    path = saved(tmp_path, arrays)
    descr = kind if kind.startswith("[") else repr(kind)
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {tuple(shape)}, }}"
    header = b"\x93NUMPY\x01\x00\xf6\x00" + text.ljust(245).encode() + b"\n"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{name}.npy", header + bytes(48))

    is_read_or_refused(path)
