"""The benchmark of readers counts what is refused, and ends at what is a fault."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from fakes.telemetry import item, rollup, row
from runtime.errors import StorageError
from runtime.ports import OutboxItem

_FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(_FOLDER)
    return importlib.import_module("telemetry_readers")


class Failing:
    """Telemetry that takes the first item and no other."""

    def __init__(self, error: Exception) -> None:
        self._error, self._num = error, 0

    async def apply(self, _: OutboxItem) -> str:
        self._num += 1
        if self._num > 1:
            raise self._error
        return "stored"


async def test_what_the_store_refuses_is_counted(readers: ModuleType) -> None:
    found = readers.Arrivals()
    items = [item(rollup(row(1))) for _ in range(3)]

    await readers.arrive(Failing(StorageError("full")), items, 1e6, found)

    assert (found.refused, len(found.lags_s)) == (2, 1)


async def test_a_fault_ends_the_benchmark(readers: ModuleType) -> None:
    items = [item(rollup(row(1))) for _ in range(3)]

    with pytest.raises(ExceptionGroup) as raised:
        await readers.arrive(Failing(ValueError("a fault")), items, 1e6, readers.Arrivals())

    assert raised.group_contains(ValueError, match="a fault")
