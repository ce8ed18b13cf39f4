"""Settings come from defaults, a file, the environment and flags; the later one wins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

from runtime.errors import SettingsError
from runtime.settings import Loaded, Origin, load


class Inner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An inner section."""

    depth: Annotated[int, Meta(ge=0, le=10)] = 1


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section."""

    port: Annotated[int, Meta(ge=1, le=65535)] = 1883
    host: str = "localhost"
    ratio: Annotated[float, Meta(ge=0, le=1)] = 0.5
    enabled: bool = True
    mode: Literal["slow", "fast"] = "slow"
    limit: Annotated[float, Meta(gt=0)] | None = None
    secret: Annotated[str, Meta(min_length=4, extra={"secret": True})] = "none"
    inner: Inner = Inner()

    def __post_init__(self) -> None:
        if self.port == 13:
            raise ValueError("port 13 brings no luck")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings under test."""

    name: str = "unnamed"
    section: Section = Section()
    other: Section = Section(port=99)


class Needy(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that need a value."""

    name: str


def read(
    toml: str = "",
    environment: dict[str, str] | None = None,
    flags: dict[str, object] | list[str] | None = None,
    *,
    folder: Path | None = None,
) -> Loaded[Settings]:
    file = None
    if folder is not None:
        file = folder / "edge.toml"
        file.write_text(toml, encoding="utf-8")
    return load(Settings, file=file, environment=environment or {}, flags=flags or [])


def problem(
    toml: str = "",
    environment: dict[str, str] | None = None,
    flags: dict[str, object] | list[str] | None = None,
    *,
    folder: Path | None = None,
) -> str:
    with pytest.raises(SettingsError) as caught:
        read(toml, environment, flags, folder=folder)
    return str(caught.value)


class TestPrecedence:
    def test_without_any_source_every_value_is_the_default(self) -> None:
        settings, origins = read()

        assert settings == Settings()
        assert set(origins.values()) == {Origin("default")}

    def test_a_file_beats_a_default(self, tmp_path: Path) -> None:
        settings, origins = read("[section]\nport = 1\n", folder=tmp_path)

        assert settings.section.port == 1
        assert origins["section.port"] == Origin("file", str(tmp_path / "edge.toml"))

    def test_the_environment_beats_a_file(self, tmp_path: Path) -> None:
        variables = {"TIERWISE_SECTION__PORT": "2"}

        settings, origins = read("[section]\nport = 1\n", variables, folder=tmp_path)

        assert settings.section.port == 2
        assert str(origins["section.port"]) == "environment TIERWISE_SECTION__PORT"

    def test_a_flag_beats_the_environment(self) -> None:
        settings, origins = read("", {"TIERWISE_SECTION__PORT": "2"}, ["section.port=3"])

        assert settings.section.port == 3
        assert origins["section.port"].source == "flag"

    def test_sources_are_merged_key_by_key(self, tmp_path: Path) -> None:
        settings, _ = read(
            '[section]\nport = 1\nhost = "file"\nratio = 0.1\n',
            {"TIERWISE_SECTION__HOST": "variable"},
            {"section.ratio": 0.9},
            folder=tmp_path,
        )

        assert settings.section == Section(port=1, host="variable", ratio=0.9)

    def test_the_last_of_two_equal_flags_wins(self) -> None:
        settings, _ = read(flags=["section.port=3", "section.port=4"])

        assert settings.section.port == 4

    def test_a_shared_section_keeps_the_defaults_of_where_it_is_used(self) -> None:
        settings, _ = read(flags=["other.host=x"])

        assert settings.other == Section(port=99, host="x")

    def test_sections_nest(self) -> None:
        settings, _ = read("", {"TIERWISE_SECTION__INNER__DEPTH": "7"}, ["other.inner.depth=8"])

        assert (settings.section.inner.depth, settings.other.inner.depth) == (7, 8)


class TestValuesFromText:
    @pytest.mark.parametrize(
        ("key", "text", "value"),
        [
            ("port", "17", 17),
            ("ratio", "1", 1.0),
            ("enabled", "false", False),
            ("mode", "fast", "fast"),
            ("mode", '"fast"', "fast"),
            ("host", "1883", "1883"),
            ("host", "true", "true"),
            ("host", "a b # c", "a b # c"),
            ("host", "'quoted'", "quoted"),
            ("host", "a = 1\nb = 2", "a = 1\nb = 2"),
            ("host", "", ""),
            ("limit", "2.5", 2.5),
            ("limit", "", None),
        ],
    )
    def test_text_is_read_as_the_type_of_its_key(self, key: str, text: str, value: object) -> None:
        settings, _ = read(environment={f"TIERWISE_SECTION__{key.upper()}": text})

        assert getattr(settings.section, key) == value

    def test_a_line_break_brings_in_no_second_key(self) -> None:
        text = problem(environment={"TIERWISE_SECTION__PORT": "1\nother = 2"})

        assert "expected whole number" in text

    def test_values_of_a_mapping_are_taken_as_they_are(self) -> None:
        settings, _ = read(flags={"section.limit": None, "name": "x", "section.enabled": False})

        assert (settings.name, settings.section.enabled) == ("x", False)


class TestUnknownKeys:
    def test_the_nearest_key_is_named(self, tmp_path: Path) -> None:
        text = problem("[section]\nprot = 1\n", folder=tmp_path)

        assert text == (
            f"unknown setting 'section.prot' in {tmp_path / 'edge.toml'}: "
            "did you mean 'section.port'?"
        )

    @pytest.mark.parametrize(
        ("toml", "wanted"),
        [
            ("names = 1\n", "did you mean 'name'?"),
            ("[sektion]\nport = 1\n", "did you mean 'section'?"),
            ("[section.iner]\ndepth = 1\n", "did you mean 'section.inner'?"),
            ('"section.port" = 1\n', "did you mean 'section.port'?"),
            ("[zzz]\nq = 1\n", "`tierwise config schema` lists all"),
        ],
    )
    def test_at_every_level(self, toml: str, wanted: str, tmp_path: Path) -> None:
        assert wanted in problem(toml, folder=tmp_path)

    def test_in_the_environment(self) -> None:
        text = problem(environment={"TIERWISE_SECTION__PROT": "1"})

        assert text.endswith("did you mean 'TIERWISE_SECTION__PORT'?")

    def test_in_flags(self) -> None:
        assert "did you mean 'section.port'?" in problem(flags=["section.prot=1"])

    def test_other_variables_are_not_ours(self) -> None:
        settings, _ = read(environment={"PATH": "/bin", "TIERWISE_MOSQUITTO": "/usr/sbin/m"})

        assert settings == Settings()


class TestRefusals:
    @pytest.mark.parametrize(
        ("toml", "wanted"),
        [
            ('[section]\nport = "x"\n', "is 'x': expected whole number, >= 1 and <= 65535"),
            ("[section]\nport = 0\n", "is 0: expected whole number, >= 1 and <= 65535"),
            ("[section]\nport = true\n", "is True: expected whole number"),
            ("[section]\nhost = 5\n", "is 5: expected text"),
            ("[section]\nratio = 1.5\n", "is 1.5: expected number, >= 0 and <= 1"),
            ("[section]\nratio = nan\n", "is nan: expected number"),
            ("[section]\nlimit = inf\n", "is inf: expected number or empty, > 0"),
            ('[section]\nmode = "medium"\n', "expected one of 'fast', 'slow'"),
            ("[section]\nport = { a = 1 }\n", "expected whole number"),
            ("section = 5\n", "is a section: write [section]"),
            ("[section]\ninner = 5\n", "is a section: write [section.inner]"),
        ],
    )
    def test_a_wrong_value_names_the_key_the_value_and_what_is_expected(
        self, toml: str, wanted: str, tmp_path: Path
    ) -> None:
        text = problem(toml, folder=tmp_path)

        assert wanted in text
        assert "edge.toml" in text

    def test_a_variable_is_named(self) -> None:
        text = problem(environment={"TIERWISE_SECTION__PORT": "x"})

        assert text == "TIERWISE_SECTION__PORT is 'x': expected whole number, >= 1 and <= 65535"

    def test_a_variable_that_names_a_section(self) -> None:
        assert "set its keys one by one" in problem(environment={"TIERWISE_SECTION": "{}"})

    def test_a_flag_that_names_a_section(self) -> None:
        assert "keys such as 'section.port'" in problem(flags=["section=1"])

    def test_a_flag_without_a_value(self) -> None:
        assert "write section.key=value" in problem(flags=["section.port"])

    def test_a_secret_is_not_shown(self) -> None:
        text = problem(environment={"TIERWISE_SECTION__SECRET": "abc"})

        assert "abc" not in text
        assert "the value given" in text

    def test_all_problems_are_told_a_line_each(self) -> None:
        text = problem(environment={"TIERWISE_SECTION__PORT": "x"}, flags=["section.ratio=7"])

        assert len(text.splitlines()) == 2

    def test_rules_between_keys_name_the_section(self) -> None:
        assert problem(flags=["section.port=13"]) == "section: port 13 brings no luck"

    def test_a_missing_value_says_how_to_give_it(self) -> None:
        with pytest.raises(SettingsError, match=r"missing setting 'name'.*TIERWISE_NAME.*--set"):
            load(Needy, file=None, environment={}, flags=[])


class TestFiles:
    def test_a_syntax_error_names_the_line(self, tmp_path: Path) -> None:
        text = problem("name = 'x'\n[section\n", folder=tmp_path)

        assert "edge.toml is no TOML" in text
        assert "line 2" in text

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"cannot read .*gone\.toml: No such file"):
            load(Settings, file=tmp_path / "gone.toml", environment={}, flags=[])

    def test_a_file_that_is_no_text(self, tmp_path: Path) -> None:
        file = tmp_path / "edge.toml"
        file.write_bytes(b"\xff\xfe")

        with pytest.raises(SettingsError, match="no UTF-8 text"):
            load(Settings, file=file, environment={}, flags=[])
