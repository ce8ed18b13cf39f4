from __future__ import annotations

import asyncio
import threading

import pytest

from fakes.waiting import eventually
from runtime.adapters.off_loop import in_thread


async def test_what_a_thread_returns_or_raises_comes_back() -> None:
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


@pytest.mark.parametrize("fails", [False, True])
async def test_who_is_cancelled_hears_of_it_when_the_thread_has_ended(*, fails: bool) -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait(10)
        ended.set()
        if fails:
            raise OSError

    waiting = asyncio.create_task(in_thread(work))
    await eventually(begun.is_set)
    for _ in range(3):
        waiting.cancel()
        await asyncio.sleep(0)
    assert not waiting.done()
    may_end.set()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()
