"""Pages about what runs are walked through with a broker, a cloud, a gateway and a device running.

alerts.md, corrections.md, deployment.md, hierarchies.md, metrics.md, overrides.md, review.md,
stop.md and wire-protocol.md: their commands as they stand, but for addresses.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fakes.documents import ROOT, SHELL, Block, blocks_of, lines_of
from fakes.ports import free_port
from fakes.programs import UNSURE, TierProgram
from fakes.shell import environment, run_line, runnable
from fakes.waiting import eventually_sync
from runtime.adapters.broker import start_broker
from runtime.adapters.dial import BrokerAddress

DOCS = ROOT / "docs"
pytestmark = pytest.mark.timeout(120)


def blocks(page: str, *languages: str) -> list[Block]:
    found = blocks_of((DOCS / page).read_text(), page)
    return [block for block in found if block.language in (languages or SHELL)]


def lines(page: str) -> list[str]:
    """What the page has a shell do."""
    return [line for block in blocks(page) for line in lines_of(block)]


@dataclass
class Webhook:
    """Somebody who is told of alerts."""

    heard: list[tuple[bytes, str]] = field(default_factory=list)
    url: str = ""


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    told = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.heard.append((body, self.headers["X-Tierwise-Signature"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *words: object) -> None:  # noqa: A002 - as it is there
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        told.url = f"http://127.0.0.1:{server.server_port}/"
        yield told
        server.shutdown()
        thread.join(10)


@dataclass(frozen=True)
class Hierarchy:
    """Three tiers; ``folder`` has the state of the cloud where pages look for it."""

    folder: Path
    broker: BrokerAddress
    edge: TierProgram
    cloud: TierProgram

    def run(self, line: str, code: int = 0, more: str = "") -> str:
        """A line of a page, with the addresses of these tiers, and words for after it."""
        for port, mine in (("8470", self.edge.url), ("8472", self.cloud.url)):
            line = line.replace(f"http://127.0.0.1:{port}", mine)
        line = line.replace("/etc/tierwise/agent.toml", "camera-3.toml")
        line = line.replace("/etc/tierwise/", "").replace("broker.example:1883", str(self.broker))
        return run_line(f"{line.partition('   #')[0]} {more}", self.folder, code)


@contextmanager
def started(line: str, tiers: Hierarchy, name: str) -> Iterator[None]:
    """A tier as a page starts it, ready, unsure of everything and at the broker here."""
    port = free_port()
    more = {
        "broker.port": tiers.broker.port,
        "upstream.broker.port": tiers.broker.port,
        "http.port": port,
        "state.folder": tiers.folder / name,
    }
    flags = [word for key, value in more.items() for word in ("--set", f"{key}={value}")]
    flags += ["--set", UNSURE, "--die-with-parent", str(os.getpid())]
    with (tiers.folder / f"{name}.log").open("wb") as log:
        running = subprocess.Popen(
            [*shlex.split(runnable(line)), *flags],
            cwd=tiers.folder,
            env=environment(tiers.folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    with running:
        try:
            tiers.run(f"tierwise health --url http://127.0.0.1:{port} --wait 60")
            yield
        finally:
            running.terminate()


@pytest.fixture(scope="module")
def hierarchy(tmp_path_factory: pytest.TempPathFactory, webhook: Webhook) -> Iterator[Hierarchy]:
    folder = tmp_path_factory.mktemp("hierarchy")
    # The page's own secret, where it has it made.
    secret = next(line for line in lines("alerts.md") if line.startswith("openssl"))
    subprocess.run(
        ["sh", "-c", secret.replace("/etc/tierwise/", "")], cwd=folder, check=True, timeout=20
    )
    (folder / "state").mkdir()
    (folder / "state" / "cloud").symlink_to(folder / "cloud-1")
    with ExitStack() as stack:
        running = start_broker(folder / "broker")
        stack.callback(running.stop)
        tiers = [
            stack.enter_context(TierProgram(kind, name, folder, running.address, *flags))
            for kind, name, flags in (
                ("cloud", "cloud-1", (
                    f"alerts.webhook_urls={webhook.url}",
                    f"alerts.webhook_secret_file={folder / 'webhook.secret'}",
                )),
                ("gateway", "gateway-1", ("state.rollup_interval_s=0.5",)),
                ("edge", "camera-3", ("review.random_share=1", "state.rollup_interval_s=0.5")),
            )
        ]  # fmt: skip
        found = Hierarchy(folder, running.address, tiers[2], tiers[0])
        for one in tiers:
            found.run(f"tierwise health --url {one.url} --wait 60")
        yield found


def test_a_sink_is_tried_and_an_alert_silenced(hierarchy: Hierarchy, webhook: Webhook) -> None:
    _, test, listing, silence, *others = lines("alerts.md")
    example = next(block for block in blocks("alerts.md", "python"))
    names: dict[str, Callable[[bytes, bytes, str], bool]] = {}
    exec(compile(example.text, str(example), "exec"), names)  # noqa: S102 - our own document
    secret = (hierarchy.folder / "webhook.secret").read_bytes().strip()

    hierarchy.run(test)
    hierarchy.run(listing)
    said = hierarchy.run(silence)

    (body, header) = webhook.heard[-1]
    assert json.loads(body)["test"] is True
    assert names["is_ours"](secret, body, header)
    assert not names["is_ours"](secret, body + b" ", header)
    assert "drift.plant-north.*" in said + hierarchy.run(listing)
    for other in others:
        if "fleet" not in other:
            assert "silenced" in hierarchy.run(other)


def test_a_device_is_taken_out_of_service_and_is_back(hierarchy: Hierarchy) -> None:
    retire, listing, restore = (one for one in lines("alerts.md") if "fleet" in one)
    hierarchy.run("tierwise infer --url http://127.0.0.1:8470 --index 7")

    def regions() -> list[str]:
        rows = json.loads(hierarchy.run("tierwise metrics fleet --json", more="2>/dev/null"))[
            "rows"
        ]
        return [row["region"] for row in rows if row["site"] == "camera-3"]

    eventually_sync(lambda: bool(regions()), timeout_s=30)
    (region,) = regions()

    def here(line: str) -> str:
        return line.replace("plant-north", region).replace("camera-1", "camera-3")

    retired, listed = hierarchy.run(here(retire)), hierarchy.run(listing)
    gone = regions()
    restored = hierarchy.run(here(restore))

    assert "is out of service" in retired
    assert "sold" in listed
    assert gone == []
    assert "is watched again" in restored
    assert regions() == [region]


def test_everything_is_stopped_and_goes_on(hierarchy: Hierarchy) -> None:
    kill, status, resume = lines("stop.md")
    ask = "tierwise infer --url http://127.0.0.1:8470 --index 7"

    killed = hierarchy.run(kill)
    # 1: nobody has answered.
    stopped, shown = hierarchy.run(ask, code=1), hierarchy.run(status)
    resumed, answered = hierarchy.run(resume), hierarchy.run(ask)

    assert "recall 7" in killed
    assert "stopped" in stopped
    assert "stop of all" in shown
    assert "nothing is stopped" in resumed
    assert "answered" in answered


def test_answers_are_overridden_and_let_be(hierarchy: Hierarchy) -> None:
    *making, listing, remove = lines("overrides.md")
    at = f"--broker {hierarchy.broker}"

    said = [hierarchy.run(line, more=at) for line in making]
    listed = hierarchy.run(listing, more=at)

    assert all("known to 2 of 2 that are online" in one for one in said)
    ids = sorted(set(re.findall(r"override (\w+-\w+) ", listed)))
    assert {one.split("-")[0] for one in ids} == {
        "ban", "boost", "pin", "replace", "tier", "withhold",
    }  # fmt: skip
    for one in ids:
        hierarchy.run(remove.replace("ban-1f0c2a", one), more=at)
    assert "override " not in hierarchy.run(listing, more=at)


def test_people_label_what_waits_by_keys_and_it_is_exported(hierarchy: Hierarchy) -> None:
    listing, label, export = lines("review.md")
    for index in range(3):
        hierarchy.run(f"tierwise infer --url http://127.0.0.1:8470 --index {index}")
    eventually_sync(lambda: hierarchy.run(listing).count("waiting") >= 3, 30)

    screen, keyboard = pty.openpty()
    words = [sys.executable, "-m", *shlex.split(label)]
    try:
        with subprocess.Popen(
            words, cwd=hierarchy.folder, stdin=keyboard, stdout=subprocess.PIPE, text=True
        ) as labelling:
            deadline_s = time.monotonic() + 30
            while labelling.poll() is None and time.monotonic() < deadline_s:
                # What is typed before it is asked for is thrown away.
                os.write(screen, b"7")
                time.sleep(0.05)
            told, _ = labelling.communicate(timeout=10)
    finally:
        os.close(screen)
        os.close(keyboard)

    assert labelling.returncode == 0, told
    said = hierarchy.run(export)
    assert int(re.findall(r"(\d+) examples", said)[0]) >= 3
    assert (hierarchy.folder / "labelled.npz").is_file()


def test_an_installation_is_looked_at(hierarchy: Hierarchy) -> None:
    (block,) = [one for one in blocks("deployment.md") if "doctor" in one.text]

    doctor, health, detect = (hierarchy.run(line) for line in lines_of(block))

    assert "broker        ok" in doctor
    assert "ready" in health
    assert "cores that may be used" in detect


def test_a_model_is_described_to_anybody(hierarchy: Hierarchy) -> None:
    (line,) = lines("wire-protocol.md")

    assert json.loads(hierarchy.run(line))["name"] == "fashion"


def test_a_notebook_asks_the_cloud(hierarchy: Hierarchy) -> None:
    (block,) = [one for one in blocks("metrics.md", "python") if "MetricsClient" in one.text]
    hierarchy.run("tierwise infer --url http://127.0.0.1:8470 --index 7")
    script = hierarchy.folder / "notebook.py"
    script.write_text(block.text)

    def asked() -> str:
        return hierarchy.run(f"{shlex.quote(sys.executable)} notebook.py")

    eventually_sync(lambda: "plant" in asked(), 30)


def test_corrections_are_streamed_and_asked_for(hierarchy: Hierarchy) -> None:
    stream, one = [line for line in lines("corrections.md") if line.startswith("curl")]

    # 28: it would go on; 404, which is no failure of curl: nothing is known of this request.
    hierarchy.run(stream, code=28, more="--max-time 1")
    assert "error" in hierarchy.run(one)


def test_what_waits_in_an_outbox_is_looked_at_and_given_up(
    hierarchy: Hierarchy, tmp_path: Path
) -> None:
    (example,) = blocks("corrections.md", "python")
    script = tmp_path / "example.py"
    script.write_text(example.text)
    alone = Hierarchy(tmp_path, hierarchy.broker, hierarchy.edge, hierarchy.cloud)
    said = alone.run(f"{shlex.quote(sys.executable)} example.py")
    listing, show, retry, drop, received = [
        line for line in lines("corrections.md") if line.startswith("tierwise outbox")
    ]

    items = json.loads(alone.run(listing, more="--json"))["items"]
    (item,) = [one["item"] for one in items if one["kind"] == "escalation"]
    assert "degraded no_upstream" in said
    assert "picture-7" in alone.run(show.replace("ITEM", item))
    alone.run(retry)
    alone.run(drop.replace("ITEM", item))
    assert item not in alone.run(listing)
    assert "feedback" not in alone.run(received)


def test_a_gateway_asks_the_gateway_of_its_country(hierarchy: Hierarchy) -> None:
    plant, country = [line for line in lines("hierarchies.md") if not line.startswith("#")]
    device = ("edge", "camera-7", hierarchy.folder, hierarchy.broker, UNSURE, "region=plant-north")
    with (
        started(country, hierarchy, "country-1"),
        started(plant, hierarchy, "plant-7"),
        TierProgram(*device) as edge,
    ):
        hierarchy.run(f"tierwise health --url {edge.url} --wait 60")
        ask = f"tierwise infer --url {edge.url} --index 7 --budget-ms 2000 --json"

        def climbed() -> list[tuple[str, str]]:
            hops = json.loads(hierarchy.run(ask))["provenance"]
            return [(hop["tier"], hop["site"]) for hop in hops]

        whole = [
            ("edge", "camera-7"),
            ("regional", "plant-7"),
            ("regional-2", "country-1"),
            ("cloud", "cloud-1"),
        ]
        eventually_sync(lambda: climbed() == whole, 30)
