"""A model's process as its parent sees it: started, asked, watched, ended.

The kernel ends it with the *thread* that started it (prctl(2)), so that thread has to live as long
as the process is to.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import msgspec

from runtime.adapters.model_worker import Ready, Start
from runtime.adapters.tensor_frames import Channel, Frame, FrameError
from runtime.core.providers import EngineReport
from runtime.errors import ArtifactError, BackendError, InvalidTensorError, StartError
from runtime.messages import Tensors

# Why a process ended: by itself, or because its parent had a reason to end it.
Cause = Literal["crashed", "wedged", "memory", "garbage", "closed"]
_MODULE = "runtime.adapters.model_worker"
_TAIL_BYTES = 2000
_READ_BYTES = 65536
_FINISH_S = 1.0
_KILLED_S = 5.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class WorkerProcess:
    """One process with one model. ``run`` and ``kill`` may be called from several threads."""

    def __init__(self, start: Start) -> None:
        """Starts the process; ``wait_ready`` says what became of it.

        Raises:
            StartError: the system could not start a process.
        """
        self._source = f"{start.folder} ({start.member})"
        self.cause: Cause = "crashed"
        # What runs the model, once that has changed.
        self.news: EngineReport | None = None
        self._tail = b""
        self._how = ""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise StartError(f"no socket for {self._source}: {error}") from error
        self._channel = Channel(ours)
        try:
            with theirs:
                self._process = _popen(theirs.fileno())
        except OSError as error:
            self._channel.close()
            raise StartError(f"no process for {self._source}: {error}") from error
        output = self._process.stdout
        if output is None:
            raise RuntimeError("a pipe was asked for")
        self._output = output
        os.set_blocking(output.fileno(), False)
        self._start = start

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def rss_bytes(self) -> int:
        """What is resident; 0 where the system does not say, or the process is gone."""
        try:
            fields = Path(f"/proc/{self.pid}/statm").read_text().split()
            return int(fields[1]) * _PAGE_BYTES
        except (OSError, IndexError, ValueError):
            return 0

    @property
    def tail(self) -> str:
        """The end of what it wrote on standard output and error."""
        return self._tail.decode(errors="replace").strip()

    def wait_ready(self, timeout_s: float, stop_fd: int) -> Ready:
        """Hands over the model and waits until it is warm, or until ``stop_fd`` is readable.

        Raises:
            ArtifactError: the model file cannot be used.
            BackendError: the warm-up failed.
            StartError: the process ended, was not ready in time, or is not wanted any more.
        """
        until_s = time.monotonic() + timeout_s
        try:
            self._channel.send(
                Frame("start", data=msgspec.msgpack.encode(self._start)), until_s=until_s
            )
            while not self._is_answering(until_s, stop_fd):
                pass
            answer = self._channel.receive(until_s)
        except TimeoutError:
            raise StartError(
                f"the process of {self._source} was not ready within {timeout_s:g} s; "
                f"it said: {self.tail or 'nothing'}"
            ) from None
        except (OSError, FrameError):
            answer = None
        if answer is None:
            how = self.end()
            raise StartError(
                f"the process of {self._source} ended at its start ({how}); "
                f"it said: {self.tail or 'nothing'}"
            )
        frame = answer[0]
        if frame.kind == "failed":
            raise (ArtifactError if frame.code == ArtifactError.code else BackendError)(frame.text)
        try:
            return msgspec.msgpack.decode(frame.data, type=Ready)
        except msgspec.DecodeError as error:
            raise StartError(f"the process of {self._source} did not say ready: {error}") from error

    def _is_answering(self, until_s: float, stop_fd: int) -> bool:
        """Waits for a frame or the end; reads what is written meanwhile, so that nothing stalls.

        Raises:
            StartError: the process is not wanted any more.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            selector.register(self._output, selectors.EVENT_READ)
            selector.register(stop_fd, selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select(max(0.0, until_s - time.monotonic()))}
        if stop_fd in ready:
            raise StartError(f"the process of {self._source} is not needed any more")
        is_open = self._output.fileno() not in ready or self.read_output()
        # After the time as well: who receives then is told so.
        is_late = time.monotonic() >= until_s
        return self._channel.fileno() in ready or not is_open or is_late

    def run(self, inputs: Tensors, timeout_s: float) -> Tensors:
        """One inference; one at a time.

        Raises:
            BackendError: the model failed, or the process did; then it has been ended.
        """
        until_s = time.monotonic() + timeout_s
        try:
            self._channel.send(Frame("run"), inputs, until_s)
            answer = self._channel.receive(until_s)
        except InvalidTensorError as error:
            raise BackendError(f"{self._source} cannot take this: {error}") from error
        except TimeoutError as error:
            self.kill("wedged")
            raise BackendError(
                f"{self._source} gave no answer within {timeout_s:g} s; its process was ended"
            ) from error
        except FrameError as error:
            self.kill("garbage")
            raise BackendError(f"{self._source} gave no frame: {error}") from error
        except OSError as error:
            raise BackendError(f"the process of {self._source} ended while it worked") from error
        if answer is None:
            raise BackendError(f"the process of {self._source} ended while it worked")
        frame, outputs = answer
        if frame.kind == "done":
            if frame.data:
                self._take_news(frame.data)
            return outputs
        if frame.kind != "failed":
            self.kill("garbage")
        raise BackendError(frame.text or f"{self._source} said {frame.kind} and no answer")

    def _take_news(self, data: bytes) -> None:
        try:
            self.news = msgspec.msgpack.decode(data, type=EngineReport)
        except msgspec.DecodeError as error:
            self.kill("garbage")
            raise BackendError(f"{self._source} gave no report: {error}") from error

    def read_output(self) -> bool:
        """Takes what was written; False once the process has closed it, as its end does."""
        while True:
            try:
                said = os.read(self._output.fileno(), _READ_BYTES)
            except BlockingIOError:
                return True
            if not said:
                return False
            self._tail = (self._tail + said)[-_TAIL_BYTES:]

    @property
    def output_fd(self) -> int:
        """Readable when there is output, or the process has ended."""
        return self._output.fileno()

    def kill(self, cause: Cause) -> None:
        """Ends the process at once; the first cause stays."""
        if self._process.poll() is None:
            if self.cause == "crashed":
                self.cause = cause
            self._process.kill()

    def end(self, *, gently: bool = False) -> str:
        """Waits for the end, frees what belongs to the process, says how it ended; idempotent."""
        if self._how:
            return self._how
        self._channel.finish()
        try:
            self._process.wait(_FINISH_S if gently or self.cause == "crashed" else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
        try:
            code = self._process.wait(_KILLED_S)
        except subprocess.TimeoutExpired:  # the kernel holds it, in a driver for instance
            self._how = "cannot be killed"
        else:
            self._how = f"exit code {code}" if code >= 0 else f"signal {_signal_name(-code)}"
        self.read_output()
        self._channel.close()
        self._output.close()
        return self._how


def _popen(descriptor: int) -> subprocess.Popen[bytes]:
    """What the parent can import, the process can: the same path, and nothing from its folder.

    Settings in the environment may be secrets, and a model has no use for them.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TIERWISE_")}
    environment["PYTHONPATH"] = os.pathsep.join(part or str(Path.cwd()) for part in sys.path)
    return subprocess.Popen(  # noqa: S603 - our own module
        [
            sys.executable, "-P", "-m", _MODULE,
            "--fd", str(descriptor), "--parent-pid", str(os.getpid()),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(descriptor,),
        env=environment,
        bufsize=0,
    )  # fmt: skip


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
