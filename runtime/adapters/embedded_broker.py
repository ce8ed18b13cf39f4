"""The broker of development, tests and demonstrations: rumqttd out of the ``iotcore`` wheel.

    python -m runtime.adapters.embedded_broker --port N --config FILE [--parent-pid PID]

It is no broker for production: no access rules, no persistence, no client certificates. It runs in
a process of its own because rumqttd cannot be stopped, and this launcher adds what it lacks:

* TCP_NODELAY. rumqttd never sets it, and every small reply then waits 40 ms for a delayed ACK.
  Linux lets an accepted socket inherit the option, so it is set on the listening sockets.
* An end. The process leaves on SIGTERM and when the process that started it is gone.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from runtime.errors import StartError

# Written once TCP_NODELAY is set: a connection accepted before that would be slow for its lifetime.
READY = "the embedded broker is ready"

_POLL_S = 0.2
_LISTEN_WITHIN_S = 10.0
_LISTEN_POLL_S = 0.01


def main(arguments: list[str] | None = None) -> int:
    """Runs the broker until it is told to stop, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m runtime.adapters.embedded_broker")
    parser.add_argument("--port", type=int, required=True, help="the port that the file listens on")
    parser.add_argument("--config", type=Path, required=True, help="rumqttd's TOML file")
    parser.add_argument("--parent-pid", type=int, help="leave when this process is gone")
    options = parser.parse_args(arguments)

    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    broker = threading.Thread(target=_run, args=(options.config, stopped), daemon=True)
    broker.start()
    try:
        _set_nodelay_on_listeners(options.port, broker)
    except StartError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stderr.write(f"{READY}\n")
    sys.stderr.flush()
    while not stopped.wait(_POLL_S):
        if options.parent_pid is not None and os.getppid() != options.parent_pid:
            break
    return 0 if broker.is_alive() else 1


def _run(config: Path, stopped: threading.Event) -> None:
    try:
        # Imported where it is used: it is an extra, and this module also serves to ask for it.
        from iotcore import IotCoreBroker  # noqa: PLC0415

        IotCoreBroker(config_path=str(config)).run_forever()
    finally:
        stopped.set()


def _set_nodelay_on_listeners(port: int, broker: threading.Thread) -> None:
    """Waits until the broker listens, then sets TCP_NODELAY for all it will accept.

    Raises:
        StartError: the broker ended, or did not listen in time.
    """
    waited = threading.Event()
    for _ in range(int(_LISTEN_WITHIN_S / _LISTEN_POLL_S)):
        descriptors = _listening_descriptors(port)
        if descriptors:
            for descriptor in descriptors:
                with _socket_of(descriptor) as listener:
                    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return
        if not broker.is_alive():
            raise StartError("the embedded broker ended before it listened")
        waited.wait(_LISTEN_POLL_S)
    raise StartError(f"the embedded broker did not listen on port {port} in time")


def _listening_descriptors(port: int) -> list[int]:
    """This process's file descriptors that listen on ``port``; Linux only."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        descriptor = int(entry.name)
        try:
            with _socket_of(descriptor) as candidate:
                is_listener = candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if is_listener and candidate.getsockname()[1] == port:
                    found.append(descriptor)
        except OSError:
            continue  # no socket, or closed since it was listed
    return found


def _socket_of(descriptor: int) -> socket.socket:
    """A socket of its own over the same connection.

    Raises:
        OSError: it is no socket, or is closed.
    """
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        # Looked for again and again, what is left open would double each time.
        os.close(copy)
        raise


if __name__ == "__main__":
    # The broker's threads cannot be joined, and an ordinary exit could wait for them.
    status = main()
    sys.stderr.flush()
    os._exit(status)
