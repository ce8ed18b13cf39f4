"""``tierwise policy``: from labelled data to a certified file, and what it says."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.decisions import audit, decision, write_log
from fakes.labelled import believing, sampled
from model_zoo.policies.prediction_files import read_predictions, write_predictions
from runtime.ports import AuditRecord, DecisionRecord
from tierwise.cli import main

Output = pytest.CaptureFixture[str]


def said(capsys: Output, *words: object) -> Any:
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def failed(capsys: Output, *words: object) -> str:
    assert main([*map(str, words)]) == 1
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("splits")
    paths = {}
    for seed, name in enumerate(("train", "cal", "fresh"), start=1):
        paths[name] = folder / f"{name}.npz"
        write_predictions(paths[name], sampled(seed, 1500))
    return paths


@pytest.fixture(scope="module")
def policy(splits: dict[str, Path]) -> Path:
    path = splits["train"].with_name("policy.json")
    words = ["--train", splits["train"], "--cal", splits["cal"], "--max-loss", 0.03]
    assert main(["policy", "fit", *map(str, words), "--output", str(path)]) == 0
    return path


class TestCollect:
    def test_the_bundled_models_answer_the_bundled_pictures(
        self, capsys: Output, tmp_path: Path
    ) -> None:
        output = tmp_path / "out.npz"

        result = said(
            capsys, "policy", "collect", "--data", "bundled:calibration", "--part", "100:400",
            "--output", output,
        )  # fmt: skip

        predictions = read_predictions(output)
        assert result["n"] == predictions.num_examples == 300
        assert predictions.tiers == ("edge", "regional", "cloud")
        assert result["accuracy"]["edge"] > 0.85
        assert result["models"] == predictions.models
        assert all(len(digest) == 64 for digest in predictions.models.values())

    def test_parts_of_one_file_do_not_overlap(self, capsys: Output, tmp_path: Path) -> None:
        ids = []
        for part in ("0:50", "50:100"):
            output = tmp_path / f"{part[0]}.npz"
            said(
                capsys, "policy", "collect", "--data", "bundled:test", "--part", part,
                "--output", output,
            )  # fmt: skip
            ids.append(read_predictions(output).example_id)

        assert len(np.intersect1d(ids[0], ids[1])) == 0

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["--data", "bundled:nothing"], "bundled:calibration"),
            (["--data", "none.npz"], "cannot be read"),
            (["--data", "bundled:test", "--part", "half"], "no range"),
            (["--data", "bundled:test", "--part", "0:0"], "is empty"),
            (["--data", "bundled:test", "--price", "edge=0"], "no price for regional, cloud"),
        ],
    )
    def test_what_cannot_be_collected_is_refused(
        self, capsys: Output, tmp_path: Path, words: list[str], says: str
    ) -> None:
        output = tmp_path / "out.npz"

        assert says in failed(capsys, "policy", "collect", *words, "--output", output)
        assert not output.exists()

    def test_data_for_another_model_is_refused(self, capsys: Output, tmp_path: Path) -> None:
        data = tmp_path / "data.npz"
        np.savez(data, image=np.zeros((5, 3, 3), np.float32), labels=np.arange(5))

        error = failed(
            capsys, "policy", "collect", "--data", data, "--output", tmp_path / "out.npz"
        )

        assert "does not fit fashion" in error


class TestFit:
    def test_it_says_what_is_promised_and_how_to_use_it(
        self, capsys: Output, splits: dict[str, Path], policy: Path, tmp_path: Path
    ) -> None:
        words = ["--train", splits["train"], "--cal", splits["cal"], "--max-loss", "0.03"]
        output = tmp_path / "again.json"

        assert main(["policy", "fit", *map(str, words), "--output", str(output)]) == 0

        out = capsys.readouterr().out
        assert "loss <= 0.03, wrong with a chance of at most 0.1" in out
        assert "certified" in out
        assert "escalation.policy=" in out
        assert output.read_bytes() == policy.read_bytes()

    def test_what_is_averaged_is_told_unless_it_is_left_out(
        self, capsys: Output, tmp_path: Path
    ) -> None:
        words = []
        for seed, name in enumerate(("train", "cal"), start=1):
            write_predictions(tmp_path / f"{name}.npz", believing(seed, 1500))
            words += [f"--{name}", str(tmp_path / f"{name}.npz")]
        fit = ["policy", "fit", *words, "--max-loss", "0.02", "--output"]

        assert main([*fit, str(tmp_path / "with.json")]) == 0
        told = capsys.readouterr().out
        assert main([*fit, str(tmp_path / "without.json"), "--no-average"]) == 0
        plain = capsys.readouterr().out

        assert "+average" in told
        assert "any: regional answers on 0." in told
        assert "+average" not in plain
        assert "answers on" not in plain

    def test_another_use_of_the_calibration_set_is_refused(
        self, capsys: Output, splits: dict[str, Path], policy: Path, tmp_path: Path
    ) -> None:
        error = failed(
            capsys, "policy", "fit", "--train", splits["train"], "--cal", splits["cal"],
            "--max-loss", "0.02", "--used-by", policy, "--output", tmp_path / "other.json",
        )  # fmt: skip

        assert "voids the guarantee" in error

    def test_an_impossible_target_is_told_with_the_way_out(
        self, capsys: Output, splits: dict[str, Path], tmp_path: Path
    ) -> None:
        error = failed(
            capsys, "policy", "fit", "--train", splits["train"], "--cal", splits["cal"],
            "--min-accuracy", "0.99", "--output", tmp_path / "none.json",
        )  # fmt: skip

        assert "impossible, because no placement reaches min-accuracy 0.99" in error
        assert "possible with min-accuracy 0.9" in error
        assert not (tmp_path / "none.json").exists()


@pytest.mark.timeout(90)
class TestEval:
    def test_json_has_the_waterfall_and_the_rate_of_broken_promises(
        self, capsys: Output, splits: dict[str, Path]
    ) -> None:
        result = said(
            capsys, "policy", "eval", "--dataset", splits["fresh"], "--labels", 500,
            "--max-loss", "0.05", "--calibrations", 20,
        )  # fmt: skip

        assert {
            "dataset", "n", "n_calibrations", "cost_mean", "cost_oracle", "cost_hindsight",
            "violation_rate", "violation_upper95", "savings_captured", "answered_by",
            "uncertified_rate",
        } <= set(result)  # fmt: skip
        assert (result["dataset"], result["n"]) == ("fresh.npz", 1500)
        assert result["n_calibrations"] == 20

    def test_for_people_there_is_a_table_and_a_picture(
        self, capsys: Output, splits: dict[str, Path], tmp_path: Path
    ) -> None:
        plot = tmp_path / "plot.png"
        words = ["--labels", "300", "--calibrations", "3", "--max-loss", "0.05"]

        code = main(
            ["policy", "eval", "--dataset", str(splits["fresh"]), *words, "--plot", str(plot)]
        )

        assert code == 0
        assert "best in hindsight" in capsys.readouterr().out
        assert plot.read_bytes().startswith(b"\x89PNG")

    def test_one_policy_is_judged_on_unseen_examples(
        self, capsys: Output, splits: dict[str, Path], policy: Path
    ) -> None:
        result = said(capsys, "policy", "eval", "--dataset", splits["fresh"], "--policy", policy)

        promise = result["gears"]["any"]
        assert promise["loss"]["mean"] <= 0.03
        assert sum(promise["answered_by"].values()) == pytest.approx(1)

    @pytest.mark.parametrize("tiers", ["0,9", "0,0", "1"])
    def test_services_that_are_no_tiers_are_refused(
        self, capsys: Output, splits: dict[str, Path], tiers: str
    ) -> None:
        error = failed(capsys, "policy", "eval", "--dataset", splits["fresh"], "--tiers", tiers)

        assert "--tiers takes at least two different services" in error


class TestShow:
    def test_it_shows_a_file(self, capsys: Output, policy: Path) -> None:
        result = said(capsys, "policy", "show", policy)

        assert result["targets"]["max_loss"] == 0.03
        assert result["gears"][0]["guarantee"] == "certified"
        assert all(isinstance(table, str) for table in result["gears"][0]["tables"])

    @pytest.mark.parametrize("contents", [b"", b"{}", b"\x00\xff", b'{"name": "x"}'])
    def test_what_is_no_policy_is_refused(
        self, capsys: Output, tmp_path: Path, contents: bytes
    ) -> None:
        path = tmp_path / "policy.json"
        path.write_bytes(contents)

        assert "is not a policy" in failed(capsys, "policy", "show", path)


class TestReplay:
    THRESHOLDS = "[thresholds]\nedge = 0.8\nregional = 0.7\n"

    def state(self, folder: Path, *, num_audits: int) -> Path:
        """The log of a device that was sure of most pictures and had some of them audited."""
        records: list[DecisionRecord | AuditRecord] = []
        for row in range(400):
            sure = decision(
                f"r{row}", seen="edge=3:0.95", budget_ms=100.0, chance=1.0, audit_chance=0.25,
                site=f"camera-{row % 2}", wall_s=time.time(), residency="cloud",
            )  # fmt: skip
            records.append(sure)
            if row < num_audits:
                records.append(audit(sure, seen="edge=3:0.95;regional=3:0.9;cloud=3:0.8"))
        write_log(folder, *records)
        return folder

    def test_it_predicts_shares_cost_and_agreement(self, capsys: Output, tmp_path: Path) -> None:
        new = tmp_path / "new.toml"
        new.write_text(self.THRESHOLDS)
        state = self.state(tmp_path / "state", num_audits=100)

        result = said(
            capsys, "policy", "replay", "--policy", new, "--state", state, "--since", "1h",
            "--by", "site",
        )  # fmt: skip

        assert (result["policy"], result["num_requests"], result["refusal"]) == ("by-hand", 400, "")
        assert result["answered_by"]["edge"]["mean"] == 1
        assert result["cost"]["mean"] == 0
        assert result["agreement"]["mean"] == pytest.approx(1)
        assert set(result["groups"]) == {"camera-0", "camera-1"}

    def test_for_people_it_is_a_table(self, capsys: Output, tmp_path: Path) -> None:
        new = tmp_path / "new.toml"
        new.write_text(self.THRESHOLDS)
        state = self.state(tmp_path / "state", num_audits=100)

        code = main(
            ["policy", "replay", "--policy", str(new), "--state", str(state), "--by", "label"]
        )

        out = capsys.readouterr().out
        assert code == 0
        assert "by-hand on 400 recorded requests" in out
        assert "Dress" in out

    def test_without_audits_it_promises_nothing(self, capsys: Output, tmp_path: Path) -> None:
        new = tmp_path / "new.toml"
        new.write_text(self.THRESHOLDS)
        state = self.state(tmp_path / "state", num_audits=0)

        code = main(["policy", "replay", "--policy", str(new), "--state", str(state), "--json"])

        result = json.loads(capsys.readouterr().out)
        assert code == 1
        assert "only 0 audits" in result["refusal"]
        assert result["agreement"] is None

    @pytest.mark.parametrize("policy", ["none.toml", "none.json"])
    def test_a_missing_policy_is_refused(self, capsys: Output, tmp_path: Path, policy: str) -> None:
        error = failed(capsys, "policy", "replay", "--policy", tmp_path / policy)

        assert "cannot be read" in error

    def test_a_folder_without_logs_is_refused(self, capsys: Output, tmp_path: Path) -> None:
        new = tmp_path / "new.toml"
        new.write_text(self.THRESHOLDS)

        code = main(["policy", "replay", "--policy", str(new), "--state", str(tmp_path)])

        assert code == 3
        assert "no decision log" in capsys.readouterr().err
