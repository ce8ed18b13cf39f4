from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from fakes.clock import FakeClock
from runtime.adapters.outage_log import OutageLog

pytestmark = pytest.mark.unit


def test_a_failure_is_logged_once_for_each_reason_and_then_its_recovery() -> None:
    clock = FakeClock()
    with capture_logs() as logs:
        outages = OutageLog(clock, client_id="c")
        for reason in ("refused", "refused", "not authorized", "not authorized"):
            outages.failed(reason)
            clock.advance(2.5)
        outages.connected()

    assert logs == [
        {
            "event": "connection.failed",
            "reason": "refused",
            "client_id": "c",
            "log_level": "warning",
        },
        {
            "event": "connection.failed",
            "reason": "not authorized",
            "client_id": "c",
            "log_level": "warning",
        },
        {"event": "connection.recovered", "down_s": 10.0, "client_id": "c", "log_level": "info"},
    ]


def test_a_loss_begins_an_outage() -> None:
    clock = FakeClock()
    with capture_logs() as logs:
        outages = OutageLog(clock)
        outages.connected()
        outages.lost("keep alive timeout", held_s=60)
        clock.advance(3)
        outages.failed("refused")
        clock.advance(1)
        outages.connected()
        outages.connected()

    assert [entry["event"] for entry in logs] == [
        "connection.established",
        "connection.lost",
        "connection.failed",
        "connection.recovered",
        "connection.established",
    ]
    assert logs[3]["down_s"] == 4.0
