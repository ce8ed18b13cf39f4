"""Profiles: every figure has a source, and what is wrong in a file is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardware_profiles.profile import Profile, decode_profile, tags_of
from hardware_profiles.registry import MAX_PROFILE_BYTES, load_profiles, profile_named, read_profile
from runtime.errors import SettingsError

GOOD = """
name = "box"
title = "A box"
kind = "mini-pc"
machines = ["x86_64"]
features = ["avx2"]
hardware = ["boxes"]

[match]
cpu = "^Box"

[figures]
cores = { value = 4, source = "sheet" }

[sources.sheet]
title = "Data sheet"
dated = "2024"
read = true
"""
PROFILES = load_profiles()


def decoded(text: str) -> Profile:
    return decode_profile(text.encode(), "box.toml")


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
def test_every_figure_that_ships_has_a_source_with_title_and_date(profile: Profile) -> None:
    for figure in profile.known().values():
        source = profile.sources[figure.source]
        assert source.title
        assert source.dated
        assert source.url.startswith("http") or profile.note.startswith("a class")


def test_the_devices_that_are_promised_are_there() -> None:
    assert {
        "raspberry-pi-zero-2w", "raspberry-pi-3b-plus", "raspberry-pi-4b", "raspberry-pi-5",
        "jetson-nano", "jetson-orin-nano", "jetson-agx-orin", "coral-dev-board", "coral-usb",
        "intel-n100", "gateway", "cloud-cpu", "cloud-l4", "cloud-t4",
        "generic-aarch64", "generic-armv7l", "generic-x86-64",
    } == PROFILES.keys()  # fmt: skip


def test_tags_are_name_machine_features_and_what_is_plugged_in() -> None:
    assert tags_of(decoded(GOOD)) == {"box", "boxes", "avx2", "x86_64"}
    assert tags_of(PROFILES["raspberry-pi-4b"]) == {
        "raspberry-pi-4b", "raspberry-pi", "neon", "aarch64",
    }  # fmt: skip
    assert "armv7l" in tags_of(PROFILES["raspberry-pi-4b"], "armv7l")
    assert tags_of(PROFILES["coral-usb"]) == {"coral-usb", "edgetpu"}


def test_what_is_not_known_is_none() -> None:
    profile = decoded(GOOD)

    assert profile.value("cores") == 4
    assert profile.value("max_w") is None


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("cores =", "coers =", "unknown field `coers`.*did you mean 'cores'"),
        ("features", "feature", "did you mean 'features'"),
        ('cpu = "^Box"', 'zzzzzz = "^Box"', r"unknown field `zzzzzz` - at `\$.match`$"),
        ("value = 4", 'value = "4"', r"Expected `float`, got `str` - at `\$.figures.cores.value`"),
        ("value = 4", "value = nan", "Expected `float` > 0.0"),
        ("value = 4", "value = inf", "a figure must be finite"),
        ("value = 4", "value = -4", "Expected `float` > 0.0"),
        ("value = 4", "value = 0", "Expected `float` > 0.0"),
        ("value = 4", "value = 1e400", "a figure must be finite"),
        ("value = 4", f"value = 1{'0' * 400}", "Number out of range"),
        ("features", "threads = 0\nfeatures", "Expected `int` >= 1"),
        ('"^Box"', '"^(Box"', "match.cpu is no regular expression: missing"),
        ('source = "sheet"', 'source = "shet"', "source 'shet' of a figure is not in `sources`"),
        ("[sources.sheet]", "[sources.other]", "source 'sheet' of a figure"),
        ('kind = "mini-pc"', 'kind = "pc"', "Invalid enum value 'pc'"),
        ('"avx2"', '"avx9"', "Invalid enum value 'avx9'"),
        ('name = "box"', 'name = "a box"', "matching regex"),
        ('title = "A box"', "", "missing required field `title`"),
        ("[figures]", "[figures", "is no TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(before: str, after: str, told: str) -> None:
    assert before in GOOD

    with pytest.raises(SettingsError, match=told) as caught:
        decoded(GOOD.replace(before, after, 1))

    assert str(caught.value).startswith("box.toml ")


def test_a_source_of_no_figure_is_refused() -> None:
    text = GOOD + '\n[sources.idle]\ntitle = "t"\ndated = "2024"\nread = false\n'

    with pytest.raises(SettingsError, match="no figure is from the source 'idle'"):
        decoded(text)


def test_a_file_that_is_nested_without_end_is_refused() -> None:
    with pytest.raises(SettingsError, match="nested too deeply"):
        decoded("a = " + "[" * 20_000)


def test_bytes_that_are_no_text_are_no_profile() -> None:
    with pytest.raises(SettingsError, match="is no TOML"):
        decode_profile(b"\xff\xfe", "x")


def test_an_unknown_name_is_answered_with_the_nearest_or_all() -> None:
    with pytest.raises(SettingsError, match="did you mean 'raspberry-pi-4b'"):
        profile_named("rasberry-pi-4b", PROFILES)
    with pytest.raises(SettingsError, match="there are cloud-cpu, "):
        profile_named("zzz", PROFILES)


def test_a_file_of_ones_own_is_a_profile(tmp_path: Path) -> None:
    path = tmp_path / "box.toml"
    path.write_text(GOOD)

    assert profile_named(str(path), PROFILES).name == "box"
    assert profile_named("jetson-nano", PROFILES).title == "NVIDIA Jetson Nano"


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    large = tmp_path / "large.toml"
    large.write_text("#" * (MAX_PROFILE_BYTES + 1))

    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_profile(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="no hardware profile"):
        read_profile(large)


def test_a_file_is_called_by_its_profile(tmp_path: Path) -> None:
    (tmp_path / "crate.toml").write_text(GOOD)

    with pytest.raises(SettingsError, match=r"call the file box\.toml"):
        load_profiles(tmp_path)
