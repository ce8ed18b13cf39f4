"""`tierwise hardware`: what it prints, and with which code it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fakes.hosts import board, write, x86
from fakes.models import linear_model, model_folder
from hardware_profiles.measurement import default_folder, read_all, save
from hardware_profiles.profile import Figures
from hardware_profiles.registry import load_profiles
from runtime.catalogue import CatalogueEntry, Requirements, Variant, encode_entry
from runtime.manifest import ModelFile
from runtime.messages import Tier
from tierwise import doctor
from tierwise.cli import main
from tierwise.hardware_command import UNITS

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _measurements_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def said(capsys: Output, *words: str, code: int = 0) -> Any:
    assert main(["hardware", *words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def printed(capsys: Output, *words: str, code: int = 0) -> str:
    assert main(["hardware", *words]) == code
    return capsys.readouterr().out


def refused(capsys: Output, *words: str) -> tuple[int, str]:
    code = main(["hardware", *words])
    captured = capsys.readouterr()
    assert captured.out == ""
    return code, captured.err


class TestDetect:
    def test_a_board_is_told_in_words(self, capsys: Output, tmp_path: Path) -> None:
        root = write(
            board(tmp_path, "NVIDIA Jetson Nano Developer Kit"),
            {
                "etc/nv_tegra_release": "# R32 (release), REVISION: 7.4\n",
                "proc/driver/nvidia/gpus/0/information": "Model: A GPU\n",
                "sys/class/thermal/thermal_zone0/temp": "41500\n",
                "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1479000\n",
                "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
            },
        )

        out = printed(capsys, "detect", "--root", str(root))

        lines = [" ".join(line.split()) for line in out.splitlines()]
        assert "profile jetson-nano (NVIDIA Jetson Nano)" in lines
        assert "Linux for Tegra # R32 (release), REVISION: 7.4" in lines
        assert "NVIDIA A GPU" in lines
        assert "temperature 41.5 degrees C" in lines
        assert "clock 1479 MHz" in lines
        assert "governor schedutil" in lines
        assert any(line.startswith("note: 0.90 GiB of memory here") for line in lines)

    def test_as_json(self, capsys: Output, tmp_path: Path) -> None:
        result = said(capsys, "detect", "--root", str(x86(tmp_path, "Intel(R) N100")))

        assert (result["profile"], result["is_exact"]) == ("intel-n100", True)
        assert result["usable_cores"] == 4
        assert result["state"] == {}

    def test_a_host_that_shows_nothing(self, capsys: Output, tmp_path: Path) -> None:
        out = printed(capsys, "detect", "--root", str(tmp_path))

        assert "memory that counts      not told" in out
        assert "note: no profile matches unknown processor" in out

    def test_this_host_has_a_profile(self, capsys: Output) -> None:
        assert said(capsys, "detect")["profile"]


class TestProfiles:
    def test_all_are_listed(self, capsys: Output) -> None:
        out = printed(capsys, "list")

        assert [line.split()[0] for line in out.splitlines()[1:]] == list(load_profiles())
        assert len(said(capsys, "list")) == len(load_profiles())

    def test_figures_are_shown_with_their_sources(self, capsys: Output) -> None:
        out = printed(capsys, "show", "jetson-nano")

        assert "11.4 GFLOPS" in out
        assert "vfp-nano: vfpbench log of a Jetson Nano" in out
        assert "nano-data: NVIDIA Jetson Nano System-on-Module data sheet" in out
        assert "was not read for this profile" in out

    def test_as_json_with_the_tags(self, capsys: Output) -> None:
        result = said(capsys, "show", "raspberry-pi-5")

        assert "dotprod" in result["tags"]
        assert result["figures"]["cores"]["value"] == 4

    def test_a_generic_profile_has_no_figures_and_a_note(self, capsys: Output) -> None:
        out = printed(capsys, "show", "generic-aarch64")

        assert "note: what is left where no other profile matches" in out
        assert "no figures" in out

    def test_without_a_name_it_is_that_of_this_host(self, capsys: Output) -> None:
        here = said(capsys, "detect")["profile"]

        assert said(capsys, "show")["name"] == here

    def test_every_figure_has_a_unit(self) -> None:
        assert UNITS.keys() == set(Figures.__struct_fields__)

    def test_an_unknown_profile_is_code_2_with_the_nearest(self, capsys: Output) -> None:
        code, err = refused(capsys, "show", "jetson-nan")

        assert code == 2
        assert "unknown hardware profile 'jetson-nan': did you mean 'jetson-nano'?" in err

    def test_a_file_with_an_unknown_key_is_code_2(self, capsys: Output, tmp_path: Path) -> None:
        path = tmp_path / "mine.toml"
        path.write_text('names = "mine"\n')

        code, err = refused(capsys, "show", str(path))
        assert code == 2
        assert "unknown field `names`; did you mean 'name'?" in err


class TestBench:
    def test_a_bundled_model_is_timed_and_kept(self, capsys: Output) -> None:
        words = ("bench", "--model", "edge", "--seconds", "0.05", "--threads", "1,2")
        out = printed(capsys, *words, "--batch", "1")

        assert out.count("BATCH  RUNS") == 2
        assert "2 threads" in out
        assert "kept in" in out
        found, complaints = read_all(default_folder())
        assert {one.threads for one in found} == {1, 2}
        assert complaints == ()

    def test_a_variant_is_a_folder_below(self, capsys: Output, tmp_path: Path) -> None:
        model_folder(tmp_path / "models" / "small")

        (result,) = said(
            capsys,
            *("bench", "--folder", str(tmp_path / "models"), "--variant", "small"),
            *("--seconds", "0.05", "--out", str(tmp_path / "out")),
        )
        assert result["model"] == "tiny"
        assert Path(result["file"]).parent == tmp_path / "out"

    def test_a_bundled_model_has_no_variants(self, capsys: Output) -> None:
        code, err = refused(capsys, "bench", "--model", "edge", "--variant", "x")

        assert code == 3
        assert "--variant is a folder below --folder" in err

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("--threads", "0"), "'0' is no list such as 1,2 of whole numbers from 1 to 256"),
            (("--threads", "1,257"), "is no list such as 1,2"),
            (("--threads", ""), "is no list such as 1,2"),
            (("--threads", "1;2"), "is no list such as 1,2"),
            (("--threads", ",".join("1" * 17)), "is no list such as 1,2"),
            (("--batch", "99999999999999999999"), "from 1 to 4096"),
            (("--seconds", "nan"), "'nan' is no number above 0"),
            (("--seconds", "inf"), "'inf' is no number above 0"),
            (("--seconds", "0"), "'0' is no number above 0"),
            (("--seconds", "x"), "'x' is no number above 0"),
            (("--seconds", "1e9"), "is over 3600 seconds"),
        ],
    )
    def test_what_is_no_number_is_a_usage_error(
        self, capsys: Output, words: tuple[str, ...], told: str
    ) -> None:
        code, err = refused(capsys, "bench", "--model", "edge", *words)

        assert code == 2
        assert told in err

    def test_a_folder_that_cannot_be_written_is_told(self, capsys: Output, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")

        code, err = refused(
            capsys,
            *("bench", "--folder", str(model_folder(tmp_path / "m").folder)),
            *("--seconds", "0.05", "--out", str(tmp_path / "file" / "out")),
        )
        assert code == 1
        assert "--out names another folder" in err

    def test_a_missing_engine_is_code_3(self, capsys: Output, tmp_path: Path) -> None:
        model = model_folder(tmp_path / "m", {"m.engine": b"x"})

        code, err = refused(capsys, "bench", "--folder", str(model.folder))
        assert code == 3
        assert "nothing here runs 'm.engine': a model is a .onnx or a .tflite file" in err

    def test_a_damaged_folder_is_code_3(self, capsys: Output, tmp_path: Path) -> None:
        model = model_folder(tmp_path / "m")
        (model.folder / "tiny.onnx").write_bytes(b"cut")

        code, err = refused(capsys, "bench", "--folder", str(model.folder))
        assert code == 3
        assert "is truncated" in err


class TestFit:
    def test_each_refusal_is_told(self, capsys: Output) -> None:
        out = printed(
            capsys,
            *("fit", "--model", "edge", "--model", "regional", "--model", "cloud"),
            *("--profile", "raspberry-pi-4b", "--budget-ms", "5", "--min-accuracy", "0.93"),
            code=1,
        )

        assert "edge: is right in 92.15%; 93.00% are asked for" in out
        assert "regional: takes " in out
        assert "says for sure" in out
        assert "(est.)" in out
        assert "note: engines are supposed to be those of this host" in out

    def test_what_was_measured_here_counts(self, capsys: Output) -> None:
        before = said(capsys, "fit", "--model", "edge", "--budget-ms", "60000", code=1)
        said(capsys, "bench", "--model", "edge", "--seconds", "0.05", "--batch", "1")

        after = said(capsys, "fit", "--model", "edge", "--budget-ms", "60000")

        (reason,) = before["variants"][0]["refused"]
        assert reason["because"] == "latency_unknown"
        assert after["chosen"] == "edge"
        assert after["variants"][0]["latency"]["is_measured"] is True

    def test_a_measurement_that_is_worth_little_is_told(self, capsys: Output) -> None:
        said(capsys, "bench", "--model", "edge", "--seconds", "0.05", "--batch", "1")
        ((one,), _) = read_all(default_folder())
        save(default_folder(), msgspec.structs.replace(one, is_contended=True, is_throttled=True))

        out = printed(capsys, "fit", "--model", "edge")
        assert "note: edge was measured on a busy machine, and while it was held back" in out

    def test_a_file_that_is_no_measurement_is_named(self, capsys: Output, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "bad.json").write_text("{")

        assert main(["hardware", "fit", "--model", "edge", "--out", str(tmp_path / "out")]) == 0

        captured = capsys.readouterr()
        assert "bad.json was left out, it is no measurement" in captured.err
        assert "edge     taken" in captured.out

    def test_variants_come_from_folders(self, capsys: Output, tmp_path: Path) -> None:
        small = model_folder(tmp_path / "small").folder
        other = {"tiny.onnx": linear_model(), "more.onnx": linear_model()}
        large = model_folder(tmp_path / "large", other).folder

        result = said(
            capsys, "fit", "--variant", f"l={large}", "--variant", f"s={small}",
            "--folder", str(small),
        )  # fmt: skip
        assert result["chosen"] == "s"
        assert [one["name"] for one in result["variants"]] == ["small", "l", "s"]

    def test_an_entry_of_a_catalogue_is_decided_as_the_device_does(
        self, capsys: Output, tmp_path: Path
    ) -> None:
        def variant(number: int, *hardware: str) -> Variant:
            files = {
                "manifest.json": ModelFile(f"{number:064x}", 10),
                "m.onnx": ModelFile("f" * 64, 10),
            }
            return Variant(files, Requirements(hardware=hardware))

        entry = CatalogueEntry(
            "m", 1, Tier.EDGE,
            {"any": variant(1), "arm": variant(2, "aarch64"), "gpu": variant(3, "cuda")},
        )  # fmt: skip
        path = tmp_path / "entry.json"
        path.write_bytes(encode_entry(entry))

        result = said(capsys, "fit", "--entry", str(path), "--profile", "raspberry-pi-4b")

        assert result["chosen"] == "arm"
        told = {one["name"]: [r["text"] for r in one["refused"]] for one in result["variants"]}
        assert told == {"any": [], "arm": [], "gpu": ["needs cuda"]}

    def test_a_profile_of_ones_own_with_little_memory_and_power(
        self, capsys: Output, tmp_path: Path
    ) -> None:
        path = tmp_path / "tiny.toml"
        path.write_text(
            'name = "tiny"\ntitle = "t"\nkind = "board"\nmachines = ["aarch64"]\n'
            'runtimes = ["onnxruntime"]\n[figures]\n'
            'memory_bytes = { value = 134_217_728, source = "s" }\n'
            'max_w = { value = 3, source = "s" }\n'
            '[sources.s]\ntitle = "t"\ndated = "2024"\nread = true\n'
        )

        result = said(
            capsys, "fit", "--model", "edge", "--profile", str(path), "--power-w", "2",
            "--max-memory-mb", "100", code=1,
        )  # fmt: skip
        reasons = [one["because"] for one in result["variants"][0]["refused"]]
        assert reasons == ["memory", "memory_limit", "power"]

    def test_nothing_to_fit_and_a_name_twice_are_told(self, capsys: Output) -> None:
        assert "fit what? give --model" in refused(capsys, "fit")[1]
        assert (
            "'edge' is given twice"
            in refused(capsys, "fit", "--model", "edge", "--model", "edge")[1]
        )

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("--min-accuracy", "90"), "'90' is no number from 0 to 1"),
            (("--min-accuracy", "x"), "'x' is no number from 0 to 1"),
            (("--budget-ms", "-1"), "'-1' is no number above 0"),
            (("--variant", "x"), "'x' is no NAME=DIR"),
            (("--profile", "raspberry"), "did you mean"),
            (("--entry", "/nowhere.json"), "cannot be read"),
        ],
    )
    def test_what_cannot_be_used_is_told(
        self, capsys: Output, words: tuple[str, ...], told: str
    ) -> None:
        code, err = refused(capsys, "fit", "--model", "edge", *words)

        assert code in {2, 3}
        assert told in err

    def test_with_json_errors_are_json(self, capsys: Output) -> None:
        _, err = refused(capsys, "fit", "--json")

        assert json.loads(err)["error"]["code"] == "cannot_start"


def test_the_doctor_says_it_in_one_line(tmp_path: Path) -> None:
    finding = doctor.check_hardware(board(tmp_path, "Raspberry Pi 4 Model B Rev 1.4", kib=524_288))

    assert finding.status == "ok"
    assert finding.found == (
        "raspberry-pi-4b (Raspberry Pi 4 Model B); Raspberry Pi 4 Model B Rev 1.4 "
        "(aarch64, 4 cores, 0.5 GiB); "
        "0.50 GiB of memory here, raspberry-pi-4b has 1.00 GiB: the smaller counts"
    )


def test_profiles_are_read_without_any_extra() -> None:
    script = (
        "import sys\n"
        "for name in ('rich', 'onnx', 'onnxruntime', 'shtab'): sys.modules[name] = None\n"
        "import hardware_profiles.bench, hardware_profiles.candidates\n"
        "from hardware_profiles import detect, matching\n"
        "print(matching.match_host(detect.detect()).profile.name)"
    )

    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.strip()
