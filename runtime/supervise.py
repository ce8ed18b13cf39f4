"""Runs a service until it is told to stop, and turns its errors into an exit code.

The first SIGTERM or SIGINT sets the stop event: the program drains, flushes and closes in that
order by itself, and is cancelled when that takes too long. The second signal ends the process at
once.

Exit codes: 0 stopped as asked; 1 an unexpected error; 2 settings are not usable; 3 the process
could not start (a port in use, no broker, a missing or damaged model file).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from runtime.errors import ArtifactError, SettingsError, StartError, TierwiseError
from runtime.logs import get_logger

EXIT_UNEXPECTED = 1
EXIT_SETTINGS = 2
EXIT_START = 3

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1
_CANCEL_S = 5.0

Service = Callable[[asyncio.Event], Awaitable[None]]


def run_service(service: Service, *, drain_s: float = 15.0, parent_pid: int | None = None) -> int:
    """Runs ``service(stop)`` to its end and returns the exit code.

    Args:
        service: The program; it returns soon after ``stop`` is set.
        drain_s: How long it may take for that before it is cancelled.
        parent_pid: Stop, as with SIGTERM, when this parent process dies (Linux only).
    """
    try:
        return asyncio.run(_until_stopped(service, drain_s, parent_pid))
    except* TierwiseError as group:
        errors = list(_leaves(group))
        for error in errors:
            report(error)
        code = max(exit_code(error) for error in errors)
    except* Exception as group:  # noqa: BLE001 - the process boundary: logged, told, exit code 1
        for unexpected in _leaves(group):
            get_logger().error("service.crashed", exc_info=unexpected)
            report(unexpected)
        code = EXIT_UNEXPECTED
    return code


def exit_code(error: BaseException) -> int:
    """The exit code that stands for an error."""
    if isinstance(error, SettingsError):
        return EXIT_SETTINGS
    if isinstance(error, StartError | ArtifactError):
        return EXIT_START
    return EXIT_UNEXPECTED


def report(error: BaseException) -> None:
    """Tells a person what went wrong: a line each, no traceback."""
    text = str(error) or type(error).__name__
    if not isinstance(error, TierwiseError):
        text = f"unexpected {type(error).__name__}: {text} (the traceback is in the log)"
    for line in text.splitlines():
        print(f"tierwise: {line}", file=sys.stderr, flush=True)  # noqa: T201 - for people


def stop_with_parent(parent_pid: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Asks the kernel for a signal when the parent dies; where no kernel can, does nothing.

    The kernel watches the *thread* that started this process (prctl(2)), so start it from one that
    lives as long as the program does.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
    # The parent may have died before the call; then nobody would ever tell.
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), number)


async def _until_stopped(service: Service, drain_s: float, parent_pid: int | None) -> int:
    stop = asyncio.Event()
    with _signals_set(stop):
        if parent_pid is not None:
            stop_with_parent(parent_pid)
        async with asyncio.TaskGroup() as group:
            work = group.create_task(_finish(service, stop), name="service")
            watch = group.create_task(_bound_drain(work, stop, drain_s), name="drain_watch")
            await asyncio.wait([work])
            watch.cancel()
    return 0 if not work.cancelled() else EXIT_UNEXPECTED


async def _finish(service: Service, stop: asyncio.Event) -> None:
    await service(stop)


async def _bound_drain(work: asyncio.Task[None], stop: asyncio.Event, drain_s: float) -> None:
    await stop.wait()
    await asyncio.sleep(drain_s)
    get_logger().error("service.drain_timed_out", drain_s=drain_s)
    work.cancel()
    await asyncio.sleep(_CANCEL_S)
    # Something ignores its cancellation; a supervisor is waiting for the end of this process.
    os._exit(EXIT_UNEXPECTED)


@contextmanager
def _signals_set(stop: asyncio.Event) -> Iterator[None]:
    """Has the first signal set ``stop`` and the second end the process.

    ``signal.signal`` and not ``loop.add_signal_handler``: the second signal has to work while
    something blocks the loop.
    """
    loop = asyncio.get_running_loop()

    def handle(number: int, _: FrameType | None) -> None:
        if asked:
            os._exit(128 + number)
        asked.append(number)
        loop.call_soon_threadsafe(stop.set)

    asked: list[int] = []
    before = [(number, signal.signal(number, handle)) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
