"""`tierwise place fleet`: forecasts and packing, and what it refuses."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.placed import Output, refused, said
from tierwise.cli import main


@pytest.fixture(autouse=True)
def _measurements_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


FLEET = """
name = "north"
quantiles = [0.5, 0.9]
[failures]
num_failures = 1
num_machine_weeks = 500
[[models]]
name = "regional"
history = "load.csv"
replica_requests_per_s = 20
replica_cpu_cores = 2
replica_memory_bytes = 4e8
[[machines]]
name = "rack-a"
domain = "a"
count = 3
cpu_cores = 8
memory_bytes = 1.6e10
[[machines]]
name = "rack-b"
domain = "b"
count = 3
cpu_cores = 8
memory_bytes = 1.6e10
"""


def fleet(folder: Path, **replaced: str) -> Path:
    lines = [
        f"{30 + 20 * math.sin(hour / 24 * 2 * math.pi):.3f},{5e8 + hour}" for hour in range(168 * 4)
    ]
    (folder / "load.csv").write_text("\n".join(["requests_per_s,memory_bytes", *lines]) + "\n")
    text = FLEET
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "fleet.toml"
    path.write_text(text)
    return path


class TestFleet:
    def test_replicas_are_forecast_spread_and_packed(self, capsys: Output, tmp_path: Path) -> None:
        found = said(capsys, "place", "fleet", fleet(tmp_path))

        (model,) = found["models"]
        assert model["peak_requests_per_s"] == pytest.approx(50, rel=0.05)
        assert model["memory_bytes"] > 5e8
        assert (model["needed"], model["replicas"]) == (3, 6)
        assert model["by_domain"] == {"a": 3, "b": 3}
        assert [one["quantile"] for one in model["forecast"]] == [0.5, 0.9, 0.95]
        assert found["is_possible"]
        assert found["exact"] == {**found["exact"], "num_used": 6, "is_proven": True}

    def test_it_is_told_in_words(self, capsys: Output, tmp_path: Path) -> None:
        assert main(["place", "fleet", str(fleet(tmp_path))]) == 0

        told = capsys.readouterr().out
        assert "packed on 6 machines; at least 6 by sums" in told
        assert "exact: 6 machines (proven); the heuristic uses 0 more" in told
        assert "PINBALL LOSS" in told

    def test_too_few_machines_are_named(self, capsys: Output, tmp_path: Path) -> None:
        path = fleet(tmp_path, **{'"a"\ncount = 3': '"a"\ncount = 1'})

        assert main(["place", "fleet", str(path)]) == 1

        told = capsys.readouterr().out
        assert "too little: machines that one replica of regional fits on: 6 needed, 4" in told
        assert "exact: no packing (proven)" in told

    def test_without_the_exact_answer(self, capsys: Output, tmp_path: Path) -> None:
        assert said(capsys, "place", "fleet", fleet(tmp_path), "--exact", "no")["exact"] is None

    @pytest.mark.parametrize(
        ("old", "new", "told"),
        [
            ("quantiles = [0.5, 0.9]", "quantiles = [0.5, 1.0]", "the quantile 1 is not"),
            ("quantiles = [0.5, 0.9]", "quantile = 0", "the quantile 0 is not"),
            ("quantiles = [0.5, 0.9]", "quantile = nan", "the quantile nan is not"),
            ("quantiles = [0.5, 0.9]", "max_shortage_chance = 1", "the chance 1 is not"),
            ("num_failures = 1", "num_failures = 501", "cannot be"),
            ("num_failures = 1", "num_failure = 1", "did you mean 'num_failures'?"),
            ("replica_requests_per_s = 20", "replica_requests_per_s = 0", "is not above 0"),
            ("replica_cpu_cores = 2", "replica_cpu_cores = nan", "cores and bytes"),
            ('history = "load.csv"\n', "", "give either history or"),
            ('history = "load.csv"', 'history = "none.csv"', "cannot be read as a history"),
            ('history = "load.csv"', "requests_per_s_by_hour = [1, 2]", "has 2 hours"),
            ('"rack-b"', '"rack-a"', "machines: 'rack-a' is there twice"),
            ("count = 3", "count = 0", "Expected `int` >= 1"),
        ],
    )
    def test_what_cannot_be_used_is_refused(
        self, capsys: Output, tmp_path: Path, old: str, new: str, told: str
    ) -> None:
        code, error = refused(capsys, "place", "fleet", fleet(tmp_path, **{old: new}))

        assert code == 2
        assert told in error

    @pytest.mark.parametrize(
        ("contents", "told"),
        [
            ("", "starts with ''"),
            ("watts\n1\n", "starts with 'watts'"),
            ("requests_per_s\nmany\n", "load.csv:2 has no number in column 1"),
            ("requests_per_s\n" + "nan\n" * 400, "negative or no number"),
            ("requests_per_s\n" + "1\n" * 90_000, "has more than"),
        ],
    )
    def test_histories_that_cannot_be_used_are_refused(
        self, capsys: Output, tmp_path: Path, contents: str, told: str
    ) -> None:
        path = fleet(tmp_path)
        (tmp_path / "load.csv").write_text(contents)

        assert told in refused(capsys, "place", "fleet", path)[1]

    def test_a_fleet_of_nothing_and_no_fleet(self, capsys: Output, tmp_path: Path) -> None:
        path = tmp_path / "x.toml"
        path.write_text('name = "x"\nmodels = []\nmachines = []\n')

        assert "has no models" in refused(capsys, "place", "fleet", path)[1]
        assert "place which fleet?" in refused(capsys, "place", "fleet")[1]

    def test_the_example_is_a_fleet(self, capsys: Output, tmp_path: Path) -> None:
        assert main(["place", "fleet", "--example"]) == 0
        path = tmp_path / "example.toml"
        path.write_text(capsys.readouterr().out)
        fleet(tmp_path)
        (tmp_path / "load.csv").rename(tmp_path / "regional.csv")

        assert said(capsys, "place", "fleet", path)["is_possible"]

    def test_the_exact_answer_is_an_extra(self, tmp_path: Path) -> None:
        """In a process of its own, as what is imported stays so."""
        fleet(tmp_path)
        hidden = "import sys; sys.modules['highspy'] = None; from tierwise.cli import main; "

        def ran(exact: str) -> subprocess.CompletedProcess[str]:
            words = ["place", "fleet", "fleet.toml", "--exact", exact]
            return subprocess.run(
                [sys.executable, "-c", f"{hidden}sys.exit(main({words!r}))"],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

        usual, wanted = ran("auto"), ran("yes")

        assert usual.returncode == 0
        assert "pip install 'tierwise[place]'" in usual.stderr
        assert wanted.returncode == 3
