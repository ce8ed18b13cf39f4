"""Small networks: every gradient against differences, the same weights from the same seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from model_zoo.baselines import Make, cnn, mlp, ngrams
from model_zoo.small_layers import (
    HASH_PRIME,
    MAX_CODE,
    Array,
    Conv1d,
    Dense,
    Dropout,
    Flatten,
    GlobalPool,
    Layer,
    NgramBag,
    Relu,
    Standardize,
)
from model_zoo.small_nets import Inputs, Lesson, SmallNet, fit, loss_and_gradient, targets_of
from model_zoo.task_data import Part

STEP = 1e-2
Rng = np.random.Generator


def series(random: Rng) -> Array:
    return random.normal(size=(4, 11, 3)).astype(np.float32)


def rows(random: Rng) -> Array:
    return random.normal(size=(4, 5)).astype(np.float32)


LAYERS: dict[str, tuple[Callable[[Rng], Layer], Callable[[Rng], Array]]] = {
    "dense": (lambda random: Dense(5, 3, random), rows),
    "conv": (lambda random: Conv1d(3, 4, 3, random), series),
    "conv that skips": (lambda random: Conv1d(3, 4, 4, random, stride=3), series),
    "pool": (lambda _: GlobalPool(), series),
    "flatten": (lambda _: Flatten(), series),
    "standardize": (lambda _: Standardize(np.full(3, 0.5), np.asarray([1, 2, 0.0])), series),
    "relu": (lambda _: Relu(), rows),
}


def numeric(function: Callable[[], float], values: Array) -> Array:
    """The gradient by central differences."""
    found = np.zeros_like(values)
    for at in np.ndindex(values.shape):
        kept = values[at]
        values[at] = kept + STEP
        above = function()
        values[at] = kept - STEP
        below = function()
        values[at] = kept
        found[at] = (above - below) / (2 * STEP)
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_every_gradient_is_that_of_differences(name: str) -> None:
    make, draw = LAYERS[name]
    random = np.random.default_rng(4)
    layer, inputs = make(random), draw(random)
    # Away from the corner of relu, where there is no gradient.
    inputs[np.abs(inputs) < 3 * STEP] = 0.5
    direction = random.normal(size=layer.forward(inputs, None).shape).astype(np.float32)

    def value() -> float:
        return float((layer.forward(inputs, None).astype(np.float64) * direction).sum())

    layer.forward(inputs, None)
    by_input = layer.backward(direction)

    assert np.allclose(by_input, numeric(value, inputs), atol=5e-3)
    for parameter in layer.parameters:
        layer.forward(inputs, None)
        layer.backward(direction)
        expected = numeric(value, parameter.value)
        assert np.allclose(parameter.gradient, expected, atol=5e-3)


def test_the_gradient_of_ngrams_is_that_of_differences() -> None:
    random = np.random.default_rng(4)
    layer = NgramBag((1, 3), 7, 2, random)
    codes = random.integers(1, 30, (5, 8)).astype(np.float32)
    codes[1, 4:] = 0
    codes[2] = 0
    direction = random.normal(size=(5, 2)).astype(np.float32)

    def value() -> float:
        return float((layer.forward(codes, None).astype(np.float64) * direction).sum())

    for parameter in layer.parameters:
        layer.forward(codes, None)
        assert not layer.backward(direction).any()
        expected = numeric(value, parameter.value)
        assert np.allclose(parameter.gradient, expected, atol=5e-3)


def test_the_gradient_of_the_loss_is_that_of_differences() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(size=(3, 4)).astype(np.float32)
    targets = random.dirichlet(np.ones(4), 3).astype(np.float32)

    _, gradient = loss_and_gradient(logits, targets)

    expected = numeric(lambda: loss_and_gradient(logits, targets)[0], logits)
    assert np.allclose(gradient, expected, atol=1e-3)


@drawn(st.integers(0, MAX_CODE), st.integers(0, 2**32 - 1))
def test_no_hash_leaves_the_table_nor_64_bits(code: int, seed: int) -> None:
    layer = NgramBag((1, 5), 13, 2, np.random.default_rng(seed))
    codes = np.full((1, 6), code, np.float64)

    found, there = layer.rows_of(codes.astype(np.float32))

    assert 5 * MAX_CODE * HASH_PRIME < 2**63
    assert ((found >= 0) & (found < 26)).all()
    assert there.all() == (code > 0)


def test_dropout_keeps_the_mean_and_does_nothing_afterwards() -> None:
    layer = Dropout(0.4)
    ones = np.ones((200, 50), np.float32)

    trained = layer.forward(ones, np.random.default_rng(0))
    back = layer.backward(ones)
    later = layer.forward(ones, None)

    assert trained.mean() == pytest.approx(1, abs=0.02)
    assert np.array_equal(trained, back)
    assert np.array_equal(later, ones)
    assert np.array_equal(layer.backward(ones), ones)


def easy(num: int = 240) -> tuple[Array, np.ndarray]:
    random = np.random.default_rng(2)
    labels = random.integers(0, 3, num)
    inputs = random.normal(size=(num, 12, 2)) + labels[:, None, None]
    return inputs.astype(np.float32), labels


@pytest.mark.parametrize("kind", ["cnn", "mlp", "ngrams"])
def test_an_easy_task_is_learned_and_the_same_seed_gives_the_same_weights(kind: str) -> None:
    inputs, labels = easy()
    part = Part(inputs, labels)
    codes = (inputs[:, :, 0] * 3 + 20).clip(1, 60).astype(np.int32)
    tasks: dict[str, tuple[Make, Inputs]] = {
        "cnn": (cnn(part, 3, (6, 6), width=3, stride=1), inputs),
        "mlp": (mlp(part, 3, (12,)), inputs),
        "ngrams": (ngrams(3, (1, 2), 64, hidden=8), codes),
    }
    make, given = tasks[kind]
    nets = [make(np.random.default_rng(1)) for _ in range(2)]

    lesson = Lesson(12, batch=32, rate=1e-2)
    losses = [fit(net, given, targets_of(labels, 3), lesson, seed=5) for net in nets]

    assert (nets[0].logits(given).argmax(axis=1) == labels).mean() > 0.9
    assert losses[0] == losses[1]
    for one, two in zip(nets[0].parameters, nets[1].parameters, strict=True):
        assert np.array_equal(one.value, two.value)


def test_another_seed_gives_other_weights() -> None:
    inputs, labels = easy(60)
    nets = [SmallNet([Flatten(), Dense(24, 3, np.random.default_rng(1))]) for _ in range(2)]

    for seed, net in enumerate(nets):
        fit(net, inputs, targets_of(labels, 3), Lesson(2), seed=seed)

    assert not np.array_equal(nets[0].parameters[0].value, nets[1].parameters[0].value)


def test_a_teacher_is_trusted_as_far_as_said() -> None:
    labels = np.asarray([0, 1])
    teacher = np.asarray([[0.0, 50.0], [0.0, 50.0]], np.float32)

    targets = targets_of(labels, 2, teacher, trust=0.25)

    assert np.allclose(targets, np.asarray([[0.75, 0.25], [0, 1]]))


def test_augmentation_changes_what_is_seen_not_what_is_kept() -> None:
    inputs, labels = easy(60)
    kept = inputs.copy()
    seen: list[int] = []

    def louder(batch: Array, random: Rng) -> Array:
        seen.append(len(batch))
        batch *= random.normal(2, 0.1)
        return batch

    net = SmallNet([Flatten(), Dense(24, 3, np.random.default_rng(1))])
    fit(net, inputs, targets_of(labels, 3), Lesson(2, batch=25), seed=1, augment=louder)

    assert seen == [25, 25, 10] * 2
    assert np.array_equal(inputs, kept)


@pytest.mark.parametrize(
    "lesson",
    [
        {"epochs": 0},
        {"epochs": 1, "batch": 0},
        {"epochs": 1, "rate": 0.0},
        {"epochs": 1, "rate": float("nan")},
        {"epochs": 1, "decay": -1.0},
        {"epochs": 1, "smoothing": 1.0},
    ],
)
def test_a_lesson_that_teaches_nothing_is_refused(lesson: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Lesson"):
        Lesson(**lesson)  # type: ignore[arg-type]


def test_nothing_to_learn_from_and_a_loss_that_explodes_are_errors() -> None:
    net = SmallNet([Dense(2, 2, np.random.default_rng(0))])
    inputs = np.ones((4, 2), np.float32)
    targets = targets_of(np.asarray([0, 1, 0, 1]), 2)

    with pytest.raises(ValueError, match="nothing to learn"):
        fit(net, inputs[:0], targets[:0], Lesson(1), seed=0)
    with pytest.raises(ValueError, match="4 examples and 3 targets"):
        fit(net, inputs, targets[:3], Lesson(1), seed=0)
    with pytest.raises(ValueError, match="lower rate"):
        fit(net, inputs * np.float32(np.nan), targets, Lesson(1), seed=0)


def test_layers_refuse_what_cannot_be() -> None:
    random = np.random.default_rng(0)

    with pytest.raises(ValueError, match="share to leave out"):
        Dropout(1.0)
    with pytest.raises(ValueError, match="1 to 5 characters"):
        NgramBag((6,), 8, 2, random)
    with pytest.raises(ValueError, match="1 to 5 characters"):
        NgramBag((), 8, 2, random)
    with pytest.raises(ValueError, match="too short"):
        cnn(Part(np.zeros((3, 6, 2), np.float32), np.zeros(3, np.int64)), 2, (4, 4))
