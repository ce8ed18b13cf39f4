"""Model files from the cloud's repository through a gateway's mirror, as programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes.blobs import Device, noise, publish
from fakes.catalogue import Cloud, entry
from fakes.catalogue import Device as CatalogueDevice
from fakes.mirrors import get
from fakes.programs import Asker
from fakes.waiting import eventually
from runtime import topics
from runtime.adapters.assignment_signatures import signed, verified
from runtime.adapters.blob_client import DownloadOptions, Wanted
from runtime.adapters.blob_transfer import TransferLimits
from runtime.adapters.http_mirror import HttpMirror
from runtime.adapters.off_loop import in_thread
from runtime.adapters.paho_bus import PahoBus
from runtime.assignments import Announcement, Assignment, Do, encode
from runtime.ports import Message

pytestmark = pytest.mark.timeout(120)


async def test_a_gateway_serves_on_after_the_cloud_was_killed(
    hierarchy: Any, asker: Asker, tmp_path: Path
) -> None:
    old, new = noise(400_000), noise(200_000) + noise(200_000, seed=2)
    documents = {
        "metadata/timestamp.json": b'{"signed": {"meta": {"snapshot.json": {"version": 1}}}}',
        "metadata/1.snapshot.json": b'{"signed": {"meta": {}}}',
    }
    old_file, new_file = publish(tmp_path / "published", old, new, **documents)
    hierarchy.broker()
    cloud = hierarchy.tier("cloud", "cloud-1", f"updates.repository={tmp_path / 'published'}")
    await asker.ready(cloud)
    gateway = hierarchy.tier(
        "gateway", "gateway-1", f"updates.upstream_url={cloud.url}", "updates.refresh_interval_s=1"
    )
    await asker.ready(gateway)
    documents_here = gateway.state / "updates" / "documents"
    await eventually((documents_here / "metadata%timestamp.json").exists, 10)
    async with Device(tmp_path / "one", gateway.url) as device:
        assert (await device.client.fetch([Wanted(old_file), Wanted(new_file)])).is_complete

    cloud.kill()

    # As patient as devices are: on a busy machine it takes seconds to make a delta.
    patient, slow = DownloadOptions(), TransferLimits()
    async with Device(tmp_path / "two", gateway.url, options=patient, limits=slow) as device:
        device.blobs.put(old_file, old)
        report = await device.client.fetch([Wanted(new_file, old_file)])
        assert device.contents(new_file) == new
    status, timestamp = await get(f"{gateway.url}/updates/metadata/timestamp.json")
    assert (status, timestamp) == (200, documents["metadata/timestamp.json"])
    assert report.is_complete
    assert report.files[0].how == "delta"
    assert gateway.stop() == 0


async def test_a_cloud_without_its_repository_says_so(hierarchy: Any, tmp_path: Path) -> None:
    cloud = hierarchy.tier("cloud", "cloud-1", f"updates.repository={tmp_path / 'nowhere'}")

    assert cloud.wait_ended() != 0
    assert "updates.repository" in cloud.log


async def test_a_gateway_relays_assignments_and_fetches_what_is_announced(
    hierarchy: Any, asker: Asker, tmp_path: Path
) -> None:
    published = Cloud(tmp_path / "repository", may_assign=True)
    path = published.publish(1)
    (tmp_path / "root.json").write_bytes(published.root)
    broker = hierarchy.broker()
    cloud = hierarchy.tier("cloud", "cloud-1", f"updates.repository={published.folder}")
    await asker.ready(cloud)
    gateway = hierarchy.tier(
        "gateway",
        "gateway-1",
        f"updates.upstream_url={cloud.url}",
        f"updates.root={tmp_path / 'root.json'}",
    )
    await asker.ready(gateway)
    payload = signed(
        Assignment("pi-1", "plant", 1, Do.TRIAL, "r1", 1e10, path, "ab" * 32), published.rollout
    )
    heard: list[Message] = []
    desk = PahoBus(address=broker.address, client_id="desk")
    desk.subscribe(topics.assignment("plant", "pi-1"), heard.append, qos=1)
    await desk.start()
    assert await desk.wait_connected(10)

    for topic, said in {
        topics.assignment_below("cloud", "plant", "pi-1"): payload,
        topics.announcement("cloud", "plant"): encode(Announcement("plant", (path,))),
    }.items():
        desk.publish(Message(topic, said, qos=1, retain=True))

    await eventually(lambda: heard, 10)
    assert heard[0].payload == payload
    wanted = [file.sha256 for file in entry(1).variants["cpu"].files.values()]
    blobs = gateway.state / "updates" / "blobs"
    await eventually(lambda: all((blobs / one).exists() for one in wanted), 20)
    cloud.kill()
    device = CatalogueDevice(tmp_path / "device", HttpMirror([gateway.url]), published.root)
    await in_thread(device.catalogue.refresh)
    assert await in_thread(device.catalogue.entry, path) == entry(1)
    assert verified(payload, device.catalogue.rollout_keys, device="pi-1", region="plant")
    device.store.close()
    await desk.close()
    assert gateway.stop() == 0
