"""A wide-area link between two network namespaces: delay, jitter, loss, rate, partition.

Two TUN devices join the namespaces, and every packet crosses this process, so real TCP runs over it
with its own retransmission and congestion control. Needs root, iproute2 and /dev/net/tun, and no
queueing discipline of the kernel. Each direction has its own faults, set over a datagram socket:
``delay MS``, ``jitter MS``, ``loss PERCENT``, ``rate MBIT`` (0: unlimited), ``down``, ``up``, for
both directions, or after ``ab`` or ``ba`` for one.
"""

from __future__ import annotations

import argparse
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_MTU = 1500
# About the product of bandwidth and delay; a longer queue would only add delay.
_MAX_QUEUED = 200
_PACKETS_AT_A_TIME = 64


@dataclass
class Direction:
    """One way of the link."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    bytes_per_s: float = 0.0
    is_up: bool = True
    num_queued: int = 0
    free_at_s: float = 0.0
    last_due_s: float = 0.0

    def obey(self, verb: str, value: float) -> None:
        """Changes a fault."""
        match verb:
            case "down" | "up":
                self.is_up = verb == "up"
            case "delay":
                self.delay_s = value / 1e3
            case "jitter":
                self.jitter_s = value / 1e3
            case "loss":
                self.loss = value / 100
            case "rate":
                self.bytes_per_s = value * 1e6 / 8
            case _:
                raise ValueError(f"unknown command {verb!r}")

    def due_s(self, now_s: float, num_bytes: int) -> float | None:
        """When a packet arrives, None when it does not; packets keep their order."""
        if not self.is_up or random.random() < self.loss or self.num_queued >= _MAX_QUEUED:
            return None
        at_s = now_s
        if self.bytes_per_s:
            at_s = self.free_at_s = max(now_s, self.free_at_s) + num_bytes / self.bytes_per_s
        at_s += self.delay_s + random.uniform(-self.jitter_s, self.jitter_s)
        self.last_due_s = max(at_s, self.last_due_s)
        return self.last_due_s


def _open_tun(name: str) -> int:
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return tun


def _join(namespace: str, device: str, address: str) -> int:
    tun = _open_tun(device)
    for words in (
        ["link", "set", device, "netns", namespace],
        ["-n", namespace, "addr", "add", f"{address}/24", "dev", device],
        ["-n", namespace, "link", "set", device, "mtu", str(_MTU), "up"],
    ):
        subprocess.run(["ip", *words], check=True)
    return tun


def carry(tuns: tuple[int, int], control: socket.socket) -> None:
    """Carries packets until the process is ended."""
    directions = (Direction(), Direction())
    poller = select.epoll()
    for number in (*tuns, control.fileno()):
        poller.register(number, select.EPOLLIN)
    on_the_way: list[tuple[float, int, int, bytes]] = []
    count = 0
    while True:
        wait_s = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else 1.0
        for number, _ in poller.poll(wait_s):
            if number == control.fileno():
                _obey(control.recv(200).decode().split(), directions)
                continue
            source = tuns.index(number)
            for _ in range(_PACKETS_AT_A_TIME):
                try:
                    packet = os.read(number, 65_536)
                except BlockingIOError:
                    break
                due_s = directions[source].due_s(time.monotonic(), len(packet))
                if due_s is not None:
                    count += 1
                    directions[source].num_queued += 1
                    heapq.heappush(on_the_way, (due_s, count, source, packet))
        now_s = time.monotonic()
        while on_the_way and on_the_way[0][0] <= now_s:
            _, _, source, packet = heapq.heappop(on_the_way)
            directions[source].num_queued -= 1
            # A device whose queue is full drops the packet, as a router would.
            with suppress(OSError):
                os.write(tuns[1 - source], packet)


def _obey(words: list[str], directions: tuple[Direction, Direction]) -> None:
    chosen = list(directions)
    if words[0] in ("ab", "ba"):
        chosen = [directions[words.pop(0) == "ba"]]
    for direction in chosen:
        direction.obey(words[0], float(words[1]) if len(words) > 1 else 0.0)


def main() -> None:
    """Joins two namespaces, says ``up``, and carries packets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--control", required=True, help="path of the datagram socket")
    parser.add_argument("--network", required=True, help="three octets, such as 10.99.1")
    options = parser.parse_args()
    tag = os.getpid() % 100_000
    first = _join(options.first, f"tw{tag}a", f"{options.network}.1")
    second = _join(options.second, f"tw{tag}b", f"{options.network}.2")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as control:
        control.bind(options.control)
        print("up", flush=True)
        carry((first, second), control)


if __name__ == "__main__":
    main()
