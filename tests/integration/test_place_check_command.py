"""`tierwise place check`: predictions against decision logs and counters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from fakes.placed import Output, case, refused, said
from fakes.placing import log_of
from tierwise.cli import main


@pytest.fixture(autouse=True)
def _measurements_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


AGENT = """# TYPE tierwise_edge_received_requests counter
tierwise_edge_received_requests_total 1000
# TYPE tierwise_edge_answers counter
tierwise_edge_answers_total{outcome="answered",reason="confident",answered_by="edge"} %d
tierwise_edge_answers_total{outcome="answered",reason="confident",answered_by="cloud"} %d
# TYPE tierwise_edge_latency_seconds histogram
tierwise_edge_latency_seconds_bucket{outcome="answered",le="0.001"} 100
tierwise_edge_latency_seconds_bucket{outcome="answered",le="0.005"} 600
tierwise_edge_latency_seconds_bucket{outcome="answered",le="0.05"} 1000
tierwise_edge_latency_seconds_bucket{outcome="answered",le="+Inf"} 1000
"""


@contextmanager
def serving(text: str) -> Iterator[str]:
    """A URL that serves this as its metrics."""

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_arguments: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Metrics) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class TestCheck:
    def test_counters_of_an_agent_are_compared(self, capsys: Output, tmp_path: Path) -> None:
        path, found = self.placed(capsys, tmp_path)
        part = round(1000 * found["recommended"]["parts"][0]["answered_share"])

        with serving(AGENT % (part, 1000 - part)) as url:
            checked = said(capsys, "place", "check", path, "--url", url)

        figures = {one["name"]: one for one in checked["figures"]}
        assert figures["answered by edge"]["is_within"]
        assert figures["p50 latency ms"]["measured_high"] == pytest.approx(5)
        assert figures["requests per s"]["is_within"] is None

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", "has no counters of an agent"),
            ("a b c", "has no metrics that can be read"),
            (AGENT % (0, 0), "no request was answered"),
        ],
    )
    def test_what_is_no_agent_or_an_idle_one_is_told(
        self, capsys: Output, tmp_path: Path, text: str, told: str
    ) -> None:
        path, _ = self.placed(capsys, tmp_path)

        with serving(text) as url:
            code, error = refused(capsys, "place", "check", path, "--url", url)

        assert code == 3
        assert told in error

    def placed(self, capsys: Output, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
        found = said(capsys, "place", case(tmp_path))
        path = tmp_path / "placed.json"
        path.write_text(json.dumps(found))
        return path, found

    def test_what_went_as_predicted_is_within(self, capsys: Output, tmp_path: Path) -> None:
        path, found = self.placed(capsys, tmp_path)
        log_of(found, tmp_path / "state")

        checked = said(capsys, "place", "check", path, "--state", tmp_path / "state")

        assert checked["is_as_predicted"]
        names = [one["name"] for one in checked["figures"]]
        assert names == [
            "answered by edge", "answered by cloud", "p50 latency ms", "p95 latency ms",
            "p99 latency ms", "requests per s",
        ]  # fmt: skip
        assert checked["figures"][-1]["measured"] == pytest.approx(20, rel=0.01)

    def test_what_did_not_is_told(self, capsys: Output, tmp_path: Path) -> None:
        path, found = self.placed(capsys, tmp_path)
        log_of(found, tmp_path / "state", slower=3.0)

        assert main(["place", "check", str(path), "--state", str(tmp_path / "state")]) == 1

        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "predicted: edge@camera > cloud@cloud"
        assert [line.split()[-1] for line in lines[2:]] == ["yes", "yes", "NO", "NO", "NO", "yes"]

    def test_without_requests_there_is_nothing_to_compare(
        self, capsys: Output, tmp_path: Path
    ) -> None:
        path, found = self.placed(capsys, tmp_path)
        log_of(found, tmp_path / "state")

        code, told = refused(
            capsys, "place", "check", path, "--state", tmp_path / "state", "--since", "1h"
        )

        assert code == 3
        assert "no request is in the decision logs" in told

    @pytest.mark.parametrize("contents", ["", "[]", "{}", '{"tiers": []', "[" * 100_000])
    def test_what_is_no_placement_is_refused(
        self, capsys: Output, tmp_path: Path, contents: str
    ) -> None:
        path = tmp_path / "placed.json"
        path.write_text(contents)

        code, told = refused(capsys, "place", "check", path, "--state", tmp_path)

        assert code == 2
        assert "is not what `tierwise place CASE.toml --json` prints" in told

    def test_a_placement_that_is_not_there_or_has_lost_a_tier(
        self, capsys: Output, tmp_path: Path
    ) -> None:
        path, found = self.placed(capsys, tmp_path)
        path.write_text(json.dumps({**found, "tiers": ["edge"]}))

        assert "1 tiers, but" in refused(capsys, "place", "check", path, "--state", tmp_path)[1]
        missing = tmp_path / "none.json"
        assert (
            "cannot be read" in refused(capsys, "place", "check", missing, "--state", tmp_path)[1]
        )
