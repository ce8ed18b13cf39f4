"""`tierwise place CASE.toml`: what it prints and refuses, and with which code it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakes.labelled import sampled
from fakes.placed import Output, case, refused, said
from model_zoo.policies.prediction_files import write_predictions
from tierwise.cli import main
from tierwise.cli.parser import build_parser
from tierwise.placement.case_file import EXAMPLE


@pytest.fixture(autouse=True)
def _measurements_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


class TestCase:
    def test_figures_alone_make_an_estimate(self, capsys: Output, tmp_path: Path) -> None:
        found = said(capsys, "place", case(tmp_path))

        assert found["recommended"]["name"] == "edge@camera > cloud@cloud"
        assert found["recommended"]["is_estimate"]
        assert found["recommended"]["accuracy"] >= 0.85
        assert found["tiers"] == ["edge", "cloud"]
        assert found["num_placements"] == 3
        assert any("independent" in note for note in found["notes"])
        assert {one["name"] for one in found["changes"]}

    def test_it_is_told_in_words_explained_and_drawn(self, capsys: Output, tmp_path: Path) -> None:
        picture = tmp_path / "front.png"

        words = ["place", str(case(tmp_path)), "--explain", "--plot", str(picture)]
        assert main(words) == 0

        told = capsys.readouterr().out
        for part in (
            "recommended: edge@camera > cloud@cloud",
            "(estimate)",
            "p95",
            "LINK DOWN",
            "CHANGES IF",
            "MISSES AT EVERY SETTING",
            "max-leaving-share",
        ):
            assert part in told
        assert picture.read_bytes().startswith(b"\x89PNG")

    def test_one_tier_without_links_and_nothing_to_change(
        self, capsys: Output, tmp_path: Path
    ) -> None:
        path = case(tmp_path, accuracy=0.1)
        text = path.read_text()
        start = text.index('[[models]]\nname = "cloud"')
        camera = text[text.index("[[places]]") : text.index('[[places]]\nname = "cloud"')]
        path.write_text(text[:start].replace("min_accuracy = 0.1", "min_accuracy = 0.0") + camera)

        assert main(["place", str(path)]) == 0

        told = capsys.readouterr().out
        assert "recommended: edge@camera\n" in told
        assert "LINK DOWN" not in told

    def test_real_predictions_are_used_and_nothing_is_independent(
        self, capsys: Output, tmp_path: Path
    ) -> None:
        predictions = sampled(1, 1500)
        write_predictions(tmp_path / "known.npz", predictions)
        right = predictions.correct.mean(axis=1)
        wanted = float(right[0] + right[-1]) / 2

        found = said(
            capsys, "place", case(tmp_path, accuracy=wanted, use='predictions = "known.npz"')
        )

        placed = found["recommended"]
        assert found["num_examples"] == 1500
        assert not placed["is_estimate"]
        assert 0 < placed["parts"][0]["accept_at"] < 1

    def test_a_model_without_predictions_is_an_estimate(
        self, capsys: Output, tmp_path: Path
    ) -> None:
        write_predictions(tmp_path / "known.npz", sampled(1, 300))
        path = case(tmp_path, use='predictions = "known.npz"', **{'"cloud"\naccur': '"big"\naccur'})

        found = said(capsys, "place", path)

        assert found["recommended"]["is_estimate"]
        assert any(note.startswith("big has no predictions") for note in found["notes"])

    def test_a_day_has_hours(self, capsys: Output, tmp_path: Path) -> None:
        weights = [1.0] * 12 + [3.0] * 12

        found = said(capsys, "place", case(tmp_path, use=f"daily_profile = {weights}"))

        assert found["mean_requests_per_s"] == pytest.approx(20)
        assert found["peak_requests_per_s"] == pytest.approx(30)
        by_hour = [2.0 * one for one in weights]
        path = case(
            tmp_path,
            use=f"requests_per_s_by_hour = {by_hour}",
            **{"requests_per_s = 2.0\n": ""},
        )
        assert said(capsys, "place", path)["peak_requests_per_s"] == 60

    def test_what_is_impossible_says_why_and_what_would_help(
        self, capsys: Output, tmp_path: Path
    ) -> None:
        code, told = refused(capsys, "place", case(tmp_path, accuracy=0.99))

        assert code == 1
        assert "impossible, because no placement reaches min-accuracy 0.99: the best is 0.9" in told
        assert "possible with min-accuracy 0.9" in told

    def test_a_budget_below_the_round_trip_is_told(self, capsys: Output, tmp_path: Path) -> None:
        code, told = refused(
            capsys, "place", case(tmp_path, accuracy=0.9, **{"budget_ms = 100": "budget_ms = 15"})
        )

        assert code == 1
        assert "possible with budget-ms 2" in told
        assert "possible with min-accuracy 0." in told

    def test_a_device_smaller_than_every_model_is_told(
        self, capsys: Output, tmp_path: Path
    ) -> None:
        path = case(
            tmp_path,
            **{'profile = "raspberry-pi-5"': 'profile = "raspberry-pi-5"\nmemory_bytes = 1000'},
        )

        code, told = refused(capsys, "place", path)

        assert code == 1
        assert "possible with memory-bytes camera" in told

    @pytest.mark.parametrize(
        ("old", "new", "told"),
        [
            ("budget_ms = 100", "budget_m = 100", "did you mean 'budget_ms'?"),
            ("raspberry-pi-5", "raspberry-pi5", "did you mean 'raspberry-pi-5'?"),
            ("budget_ms = 100", "budget_ms = nan", "budget_ms: nan"),
            ("budget_ms = 100", "budget_ms = -1", "budget_ms: -1"),
            ("requests_per_s = 2.0", "requests_per_s = 0", "requests_per_s is 0"),
            ("requests_per_s = 2.0\n", "", "give either requests_per_s or"),
            ("requests_per_s = 2.0", "requests_per_s = 2\ndaily_profile = [1]", "1 numbers; a day"),
            (
                "requests_per_s = 2.0",
                f"requests_per_s = 2\ndaily_profile = {[0] * 24}",
                "daily_profile has to be",
            ),
            (
                "requests_per_s = 2.0",
                f"requests_per_s_by_hour = {[1] * 24}\ndaily_profile = {[1] * 24}",
                "daily_profile goes with",
            ),
            ("requests_per_s = 2.0", "requests_per_s_by_hour = [1]", "1 numbers; a day"),
            ("max_leaving_share = 0.9", "max_update_s = 0", "max_update_s: 0 is not above 0"),
            ('name = "cloud"\naccuracy = 0.95', 'name = "edge"\naccuracy = 0.95', "there twice"),
            ("accuracy = 0.95\n", "", "model cloud has no accuracy"),
            ("latency = {cloud", "latency = {clod", "no place is 'clod': did you mean 'cloud'?"),
            ("size_bytes = 5e6", 'size_bytes = 5e6\nplaces = ["zzz"]', "there are camera, cloud"),
            ("size_bytes = 5e6", 'size_bytes = 5e6\nfolder = "a"\nbundled = "edge"', "not both"),
            ('upper = "cloud"', 'upper = "moon"', "there is no place 'moon'"),
            ('kind = "device"', 'kind = "boat"', "Invalid enum value 'boat'"),
            ('name = "small"', "name = ", "is no TOML"),
        ],
    )
    def test_what_cannot_be_used_is_refused(
        self, capsys: Output, tmp_path: Path, old: str, new: str, told: str
    ) -> None:
        code, error = refused(capsys, "place", case(tmp_path, **{old: new}))

        assert code == 2
        assert told in error

    def test_no_models_and_no_file(self, capsys: Output, tmp_path: Path) -> None:
        path = case(tmp_path)
        text = path.read_text()
        path.write_text("models = []\nplaces = []\n" + text[: text.index("[[models]]")])

        assert refused(capsys, "place", path)[1].endswith("nothing can be placed\n")
        assert "cannot be read" in refused(capsys, "place", tmp_path / "none.toml")[1]
        assert "place what?" in refused(capsys, "place", "case")[1]

    def test_files_that_are_too_large_or_nested_are_refused(
        self, capsys: Output, tmp_path: Path
    ) -> None:
        path = tmp_path / "x.toml"
        path.write_bytes(b"#" * (5 << 20))
        assert "has more than" in refused(capsys, "place", path)[1]
        path.write_text("a = " + "[" * 100_000)
        assert "nested too deeply" in refused(capsys, "place", path)[1]

    @pytest.mark.timeout(60)
    def test_the_example_is_a_case_for_the_bundled_models(
        self, capsys: Output, tmp_path: Path
    ) -> None:
        assert main(["place", "--example"]) == 0
        printed = capsys.readouterr().out
        assert printed == EXAMPLE
        path = tmp_path / "case.toml"
        # Without the predictions, which take a while, accuracy is an estimate.
        text = printed.replace('predictions = "bundled:calibration"\n', "")
        path.write_text(text.replace("min_accuracy = 0.948", "min_accuracy = 0.94"))

        found = said(capsys, "place", path)

        assert found["recommended"]["cost"] > 0
        assert found["num_placements"] == 18

    def test_a_model_that_a_device_lacks_the_engine_for_is_not_placed_there(
        self, capsys: Output, tmp_path: Path
    ) -> None:
        path = tmp_path / "case.toml"
        text = EXAMPLE.replace('predictions = "bundled:calibration"\n', "")
        path.write_text(text.replace('"raspberry-pi-5" ', '"coral-usb" '))

        code, told = refused(capsys, "place", path)

        assert code == 1
        assert "edge cannot run on camera: needs" in told

    @pytest.mark.parametrize(
        ("num_clouds", "code", "told"),
        [(150, 2, "at most 16"), (6, 0, "")],
    )
    def test_many_places_take_bounded_time(
        self, capsys: Output, tmp_path: Path, num_clouds: int, code: int, told: str
    ) -> None:
        path = _with_clouds(tmp_path, num_clouds, num_models=1)

        assert main(["place", str(path), "--json"]) == code

        assert told in capsys.readouterr().err

    @pytest.mark.timeout(60)
    def test_what_would_change_too_many_placements_is_not_searched(
        self, capsys: Output, tmp_path: Path
    ) -> None:
        path = _with_clouds(tmp_path, 12, num_models=5)

        assert main(["place", str(path), "--json"]) == 0

        captured = capsys.readouterr()
        assert "too many to search" in captured.err
        assert json.loads(captured.out)["changes"] == []

    def test_too_many_placements_are_refused(self, capsys: Output, tmp_path: Path) -> None:
        path = _with_clouds(tmp_path, 14, num_models=8)

        code, told = refused(capsys, "place", path)

        assert code == 2
        assert "more than 1000 placements are too many" in told

    def test_place_alone_is_short_for_place_case(self) -> None:
        parser = build_parser()

        short = parser.parse_args(["place", "x.toml", "--json"])
        assert short == parser.parse_args(["place", "case", "x.toml", "--json"])
        assert parser.parse_args(["place", "--example"]).example


def _with_clouds(folder: Path, num_clouds: int, *, num_models: int) -> Path:
    """The small case with models that differ by name, each at the camera and in many clouds."""
    path = case(folder)
    text = path.read_text()
    head = text[: text.index("[[models]]")]
    camera = text[text.index("[[places]]") : text.index('[[places]]\nname = "cloud"')]
    for number in range(num_models):
        head += (
            f'[[models]]\nname = "m{number}"\naccuracy = {0.86 + number / 100}\nsize_bytes = 1e5\n'
            "memory_bytes = 1e8\nlatency = {camera = {p50_ms = 1, p99_ms = 2}, "
            "cloud-cpu = {p50_ms = 1, p99_ms = 2}}\n"
        )
    head += camera
    for number in range(num_clouds):
        kind = "region" if number % 2 else "cloud"
        head += (
            f'[[places]]\nname = "c{number}"\nkind = "{kind}"\nprofile = "cloud-cpu"\n'
            f"price_per_hour = {1 + number}\n"
        )
    for number in range(num_clouds):
        head += (
            f'[[links]]\nlower = "camera"\nupper = "c{number}"\nrtt_ms = 9\nbandwidth_mbit_s = 9\n'
        )
    for number in range(1, num_clouds, 2):
        head += (
            f'[[links]]\nlower = "c{number}"\nupper = "c{number - 1}"\nrtt_ms = 9\n'
            "bandwidth_mbit_s = 9\n"
        )
    path.write_text(head)
    return path
