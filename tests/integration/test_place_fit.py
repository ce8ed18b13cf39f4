"""From a placement to a policy: what is written, taken and refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fakes.labelled import sampled
from fakes.placed import Output, case, refused, said
from model_zoo.policies.prediction_files import write_predictions
from tierwise.cli import main
from tierwise.placement.case_file import EXAMPLE

pytestmark = pytest.mark.alone


@pytest.fixture(autouse=True)
def _measurements_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


class TestFit:
    def test_one_tier_has_no_policy(self, capsys: Output, tmp_path: Path) -> None:
        words = ["place", case(tmp_path, accuracy=0.5), "--write-fit", tmp_path / "fit.toml"]

        assert main([*map(str, words)]) == 1
        assert "is one tier" in capsys.readouterr().err

    def test_models_without_folders_have_to_be_named(self, capsys: Output, tmp_path: Path) -> None:
        fit = tmp_path / "fit.toml"
        assert main(["place", str(case(tmp_path)), "--write-fit", str(fit)]) == 0
        capsys.readouterr()

        code, told = refused(
            capsys, "policy", "collect", "--placement", fit, "--data", "bundled:test",
            "--output", tmp_path / "x.npz",
        )  # fmt: skip

        assert code == 1
        assert "has no folder for edge" in told

    def test_predictions_of_other_tiers_or_prices_are_refused(
        self, capsys: Output, tmp_path: Path
    ) -> None:
        fit = tmp_path / "fit.toml"
        assert main(["place", str(case(tmp_path)), "--write-fit", str(fit)]) == 0
        capsys.readouterr()
        three = sampled(1, 300)
        two = dataclasses.replace(
            three,
            tiers=("edge", "cloud"),
            price=np.asarray([0.5, 1.0]),
            predicted=three.predicted[[0, -1]],
            score=three.score[[0, -1]],
            scores={kind: one[[0, -1]] for kind, one in three.scores.items()},
            service_ms=None,
            beliefs=None,
            models={},
            kinds=(),
        )
        for predictions, told in ((three, "collect with --placement, too"), (two, "other prices")):
            path = tmp_path / "train.npz"
            write_predictions(path, predictions)
            code, error = refused(
                capsys, "policy", "fit", "--placement", fit, "--train", path, "--cal", path,
                "--output", tmp_path / "p.json",
            )  # fmt: skip
            assert code == 1
            assert told in error

    @pytest.mark.timeout(300)
    def test_a_placement_a_fitted_policy_and_its_judgement_agree_on_the_cost(
        self, capsys: Output, tmp_path: Path
    ) -> None:
        """Within 0.15 of the top tier's price: a certificate is dearer than an estimate.

        Two points may be lost against the top tier; less slack would need more labels.
        """
        fit = tmp_path / "fit.toml"
        right = said(
            capsys, "policy", "collect", "--data", "bundled:calibration", "--part", "0:1000",
            "--output", tmp_path / "known.npz",
        )["accuracy"]  # fmt: skip
        wanted = right["cloud"] - 0.02
        bundled = EXAMPLE.replace('"bundled:calibration"', '"known.npz"').replace(
            'bundled = "regional"', 'bundled = "regional"\nplaces = ["region"]'
        )
        (tmp_path / "case.toml").write_text(
            bundled.replace("min_accuracy = 0.948", f"min_accuracy = {wanted}")
        )
        placed = said(capsys, "place", tmp_path / "case.toml", "--write-fit", fit)
        assert len(placed["tiers"]) == 2
        for name, data, part in (
            ("train", "calibration", "0:1000"),
            ("cal", "test", "0:1200"),
            ("fresh", "test", "1200:1900"),
        ):
            said(
                capsys, "policy", "collect", "--placement", fit, "--data", f"bundled:{data}",
                "--part", part, "--output", tmp_path / f"{name}.npz",
            )  # fmt: skip

        policy = said(
            capsys, "policy", "fit", "--placement", fit, "--train", tmp_path / "train.npz",
            "--cal", tmp_path / "cal.npz", "--output", tmp_path / "policy.json", "--no-average",
        )  # fmt: skip
        judged = said(
            capsys, "policy", "eval", "--dataset", tmp_path / "fresh.npz",
            "--policy", tmp_path / "policy.json",
        )  # fmt: skip

        predicted = _predicted_cost(fit)
        (gear,) = policy["gears"]
        (measured,) = judged["gears"].values()
        assert policy["tiers"] == placed["tiers"]
        assert gear["budget_ms"] == 60
        assert gear["promise"]["cost"]["mean"] == pytest.approx(predicted, abs=0.15)
        assert measured["cost"]["mean"] == pytest.approx(predicted, abs=0.15)
        assert measured["cost"]["mean"] == pytest.approx(gear["promise"]["cost"]["mean"], abs=0.05)


def _predicted_cost(fit: Path) -> float:
    (line,) = (one for one in fit.read_text().splitlines() if one.startswith("predicted_cost"))
    return float(line.partition(" = ")[2])
