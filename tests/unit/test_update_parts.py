"""Counts of a model, settings of updates, and the order in which releases answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cloud_tier.rollouts.hearing import known_as
from edge_agent.settings import EdgeSettings
from fakes.clock import FakeClock
from fakes.tiers import ListLog, manifest
from runtime.adapters.metrics import TierMetrics
from runtime.assignments import DeviceReport, decode_report
from runtime.catalogue import CatalogueEntry, Variant
from runtime.core.confidence import confidence_of_batch
from runtime.core.releases import Fault
from runtime.core.rollout_states import Execution
from runtime.core.trial import Window
from runtime.errors import SettingsError
from runtime.exchange.course import Identity
from runtime.local_model import LocalResult
from runtime.manifest import ModelFile
from runtime.messages import ItemKind, Tier
from runtime.ports import AuditRecord, DecisionRecord, OutboxItem
from runtime.settings import load
from runtime.updating.counting import LEARNED_FROM, MIN_TIMES, Usual, Watch, WatchedLog
from runtime.updating.order_file import MAX_BYTES, OrderFile
from runtime.updating.settings import UpdateSettings
from runtime.updating.telling import MAX_REASON, Tale, Teller, published_name
from runtime.updating.trial_file import Compared, TrialFile
from runtime.updating.wiring import with_hardware


def result(took_ms: float = 1.0, *, is_valid: bool = True) -> LocalResult:
    scores = np.array([[3.0, 1.0]] if is_valid else [[np.nan, 1.0]], np.float32)
    confidence = confidence_of_batch(scores, 1.0)
    return LocalResult({"logits": scores}, confidence, (), round(took_ms * 1000), 0)


def decision(action: str, service_us: int) -> DecisionRecord:
    fields: dict[str, Any] = dict.fromkeys(
        ("request_id", "tier", "site", "region", "model", "model_version", "decided_because"), ""
    )
    return DecisionRecord(
        wall_s=0.0,
        hop=0,
        action=action,
        outcome="answered",
        reason="",
        answered_by="",
        label=None,
        confidence=None,
        remaining_ms=1.0,
        latency_ms=1.0,
        service_us=service_us,
        sent_bytes=0,
        **fields,
    )


def audit(*, agrees: bool | None) -> AuditRecord:
    return AuditRecord(0.0, "q", "s", "", "", 0.1, "", agrees=agrees)


runs = st.lists(st.sampled_from(["ran", "slow", "invalid", "failed", "late", "escalated"]))


@given(runs)
def test_whatever_happens_the_counts_fit_together(happened: list[str]) -> None:
    watch = Watch("r", slow_limit_ms=5.0)
    log = WatchedLog(ListLog(), lambda: watch)
    for one in happened:
        match one:
            case "ran":
                watch.ran(result())
            case "slow":
                watch.ran(result(9.0))
            case "invalid":
                watch.ran(result(is_valid=False))
            case "failed":
                watch.failed()
            case "late":
                watch.late()
            case "escalated":
                log.append(decision("escalate", 10))

    window = watch.window()
    assert window.num_requests == len(happened) - happened.count("escalated")
    assert window.num_invalid == happened.count("invalid")
    assert window.num_errors == happened.count("failed")
    assert window.num_slow == happened.count("slow") + happened.count("late")
    assert window.num_escalated <= window.num_requests


def test_releases_are_held_to_the_same_limit_whoever_answers() -> None:
    usual = Usual(max_slowdown=1.25, floor_ms=2.0)
    first, second = Watch("a", usual=usual), Watch("b", usual=usual)
    for _ in range(LEARNED_FROM):
        first.ran(result(4.0))
    for watch in (first, second):
        watch.ran(result(4.9))
        watch.ran(result(5.1))

    assert usual.limit_ms == 5.0
    assert (first.slow, second.slow) == (1, 1)


@given(runs, runs)
def test_counts_between_two_reports_add_up(first: list[str], second: list[str]) -> None:
    watch = Watch("0" * 64)
    for _ in first:
        watch.ran(result())
    before = watch.totals()
    for _ in second:
        watch.failed()

    since = watch.counted(before, 3.0)
    assert (since.requests, since.errors, since.over_s) == (len(second), len(second), 3.0)


def test_only_what_our_model_saw_counts_as_its_escalation_and_only_audits_that_came_back() -> None:
    watch, log = Watch("r"), ListLog()
    watched = WatchedLog(log, lambda: watch)
    for record in (decision("escalate", 0), decision("answer", 5), decision("escalate", 5)):
        watched.append(record)
    for agrees in (True, False, None):
        watched.append(audit(agrees=agrees))

    assert (watch.escalated, watch.audited, watch.audited_wrong) == (1, 2, 1)
    assert (len(log.records), len(log.audits), watched.num_dropped) == (3, 3, 0)


def test_a_percentile_needs_enough_runs_and_what_is_fast_anyway_is_equal() -> None:
    watch = Watch("r")
    for _ in range(MIN_TIMES - 1):
        watch.ran(result(0.1))
    assert watch.window().p95_ms is None
    watch.ran(result(0.1))

    assert watch.window().p95_ms == pytest.approx(0.1)
    assert watch.window(floor_ms=2.0).p95_ms == 2.0


def test_trouble_is_told_at_once() -> None:
    told: list[str] = []
    watch = Watch("r", on_trouble=lambda: told.append("trouble"))
    watch.ran(result())
    watch.ran(result(is_valid=False))
    watch.failed()

    assert told == ["trouble"] * 2


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"url": "http://g:1"}, "root"),
        ({"url": "ftp://g", "root": "r"}, "url"),
        ({"url": "http://g:1  http://h", "root": "r"}, "url"),
        ({"soak_s": 10.0, "deadline_s": 1.0}, "soak_s"),
        ({"shadow_share": 1.5}, "shadow_share"),
        ({"min_agreement": 1.0}, "min_agreement"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], told: str) -> None:
    flags = {f"updates.{name}": value for name, value in wrong.items()}

    with pytest.raises(SettingsError, match=told):
        load(EdgeSettings, file=None, environment={}, flags={"agent": "a", "region": "r", **flags})


def test_several_mirrors_and_tags_are_given_with_blanks_between_them() -> None:
    settings = UpdateSettings(url="http://a:1 https://b", root="r", hardware=" x  y ")

    assert settings.urls == ("http://a:1", "https://b")
    assert settings.tags == {"x", "y"}
    assert settings.is_shadowed
    assert not UpdateSettings(shadow_share=0.0).is_shadowed
    assert not UpdateSettings(min_shadowed=0).is_shadowed
    assert settings.shadow_limits().min_requests == settings.min_shadowed


def test_the_latest_assignment_is_read_as_it_was_written_and_never_without_end(
    tmp_path: Path,
) -> None:
    orders = OrderFile(tmp_path)
    assert orders.read() is None
    orders.write(b"one")
    orders.write(b"two")
    assert orders.read() == b"two"
    (tmp_path / "assignment").write_bytes(bytes(10 * MAX_BYTES))
    assert len(orders.read() or b"") == MAX_BYTES


def test_an_assignment_that_cannot_be_kept_or_read_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "assignment").mkdir()
    orders = OrderFile(tmp_path)

    orders.write(b"one")
    assert orders.read() is None


def test_what_a_trial_is_compared_with_is_that_of_the_same_trial(tmp_path: Path) -> None:
    file = TrialFile(tmp_path)
    assert file.read(3) == Compared(3)
    compared = Compared(3, Window(num_requests=9, p95_ms=1.5), Window(num_shadowed=5))
    file.write(compared)

    assert file.read(3) == compared
    assert file.read(4) == Compared(4)


@pytest.mark.parametrize("contents", [b"", b"{}", b"\xff", b'{"generation": 3, "before": 1}'])
def test_one_that_is_damaged_is_as_good_as_none(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "trial.json").write_bytes(contents)

    assert TrialFile(tmp_path).read(3) == Compared(3)


def test_one_that_cannot_be_written_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "trial.json").mkdir()
    TrialFile(tmp_path).write(Compared(3))

    assert TrialFile(tmp_path).read(3) == Compared(3)


class Told:
    """A teller without an agent."""

    def __init__(self, tier: Tier = Tier.EDGE) -> None:
        self.items: list[OutboxItem] = []
        self.watches = [Watch("a" * 64)]
        self.clock = FakeClock()
        self.teller = Teller(
            Identity(tier, "camera-1", "r"),
            7,
            "x",
            post=self.items.append,
            serving=lambda: ("a" * 64, manifest(tier)),
            watches=lambda: self.watches,
            clock=self.clock,
            metrics=TierMetrics(tier).updates,
        )

    @property
    def reports(self) -> list[DeviceReport]:
        return [decode_report(one.body) for one in self.items]


def test_a_state_is_told_once_with_its_reason_cut_to_what_a_report_takes() -> None:
    told = Told()
    for _ in range(2):
        told.teller.tell(Execution.REJECTED, seq=3, reason="x" * 9999)

    (report,) = told.reports
    assert (report.seq, report.state, len(report.reason)) == (3, "rejected", MAX_REASON)
    assert (report.epoch, report.number, report.version) == (7, 1, "edge-1")
    assert told.items[0].kind is ItemKind.UPDATE


def test_above_the_edge_a_model_is_told_of_with_its_tier_and_by_whom() -> None:
    above, below = Told(Tier.REGIONAL), Told()
    above.teller.report()
    below.teller.report()

    name = manifest(Tier.EDGE).name
    assert [above.reports[0].model, below.reports[0].model] == [f"{name}-regional", name]
    assert [above.items[0].origin, below.items[0].origin] == ["r/camera-1", ""]


@pytest.mark.parametrize("tier", [Tier.EDGE, Tier.REGIONAL, Tier.REGIONAL_2])
def test_a_model_is_for_those_that_run_it_at_its_tier(tier: Tier) -> None:
    file = ModelFile("a" * 64, 1)
    variants = {"cpu": Variant({"manifest.json": file, "m.onnx": file})}
    for published in ("m", f"m-{tier.value}"):
        entry = CatalogueEntry(published, 1, tier, variants)
        ran = {other: published_name(replace(manifest(other), name="m")) for other in Tier}
        assert [other for other in Tier if ran[other] in known_as(entry)] == [tier]


def test_the_tags_of_a_device_are_those_of_its_settings_else_those_that_are_found(
    tmp_path: Path,
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("model name : x\nflags : sse avx2 fma\n")
    stated = UpdateSettings(hardware="mine")

    assert with_hardware(stated) is stated
    assert "avx2" in with_hardware(UpdateSettings(), tmp_path).tags


def test_a_fault_is_told_by_its_name() -> None:
    told = Told()
    told.teller.given_up(3, Fault.INVALID_OUTPUT, "3 of 9")
    told.teller.given_up(4, Fault.LATENCY, "")

    assert [(one.reason, one.fault) for one in told.reports] == [
        ("invalid_output: 3 of 9", "not_a_number"),
        ("latency", ""),
    ]
    assert told.teller.tale == Tale(4, "rolled_back", "latency")


def test_reports_say_what_is_new_and_nothing_of_what_has_left_without_news() -> None:
    told = Told()
    serving, left = told.watches[0], Watch("b" * 64)
    told.watches.append(left)
    left.failed()
    serving.ran(result())
    told.clock.advance(10.0)
    told.teller.report()
    told.teller.report()
    told.watches.remove(left)
    serving.ran(result())
    told.teller.report()

    first, second, third = (report.counted for report in told.reports)
    assert [(one.release[0], one.requests, one.errors) for one in first] == [
        ("a", 1, 0),
        ("b", 1, 1),
    ]
    assert first[0].over_s == 10.0
    assert [(one.release[0], one.requests) for one in second] == [("a", 0)]
    assert [(one.release[0], one.requests) for one in third] == [("a", 1)]
