"""Model files from the cloud's repository through a gateway's mirror, as programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes.blobs import Device, noise, publish
from fakes.mirrors import get
from fakes.programs import Asker
from fakes.waiting import eventually
from runtime.adapters.blob_client import Wanted

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

    async with Device(tmp_path / "two", gateway.url) as device:
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
