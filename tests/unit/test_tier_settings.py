"""The settings of the three tiers, their examples and their reference."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from cloud_tier.settings import CloudSettings
from edge_agent.settings import EdgeSettings
from regional_gateway.settings import GatewaySettings
from runtime import topics
from runtime.errors import SettingsError
from runtime.settings import load
from runtime.settings_keys import keys
from runtime.settings_reference import (
    HIDDEN,
    describe,
    example_toml,
    json_schema,
    shown_values,
    toml_value,
)

TIERS: dict[str, type[msgspec.Struct]] = {
    "edge": EdgeSettings,
    "gateway": GatewaySettings,
    "cloud": CloudSettings,
}
NAMED = {
    "edge": {"agent": "a", "region": "r"},
    "gateway": {"gateway": "g", "region": "r"},
    "cloud": {"cloud": "c"},
}
every_tier = pytest.mark.parametrize("tier", TIERS)


@every_tier
class TestEveryTier:
    def test_the_example_file_is_what_the_settings_say(self, tier: str, repository: Path) -> None:
        written = (repository / "examples" / "config" / f"{tier}.toml").read_text(encoding="utf-8")

        # When this fails: `tierwise config schema --tier TIER --toml > examples/config/TIER.toml`
        assert written == example_toml(TIERS[tier])

    def test_the_example_file_loads(self, tier: str, repository: Path) -> None:
        file = repository / "examples" / "config" / f"{tier}.toml"

        settings, _ = load(TIERS[tier], file=file, environment={}, flags=[])

        assert isinstance(settings, TIERS[tier])

    def test_the_example_shows_every_key_in_its_section(self, tier: str) -> None:
        lines = example_toml(TIERS[tier]).splitlines()
        uncommented = "\n".join(
            line.removeprefix("# ")
            if line.startswith("# ") and " = " in line and line[2:3].islower()
            else line
            for line in lines
        )

        tree = tomllib.loads(uncommented)

        assert set(_flat(tree)) == {key.name for key in keys(TIERS[tier])}

    def test_only_ids_have_to_be_given(self, tier: str) -> None:
        settings, _ = load(TIERS[tier], file=None, environment={}, flags=NAMED[tier])

        assert settings == TIERS[tier](**NAMED[tier])

    def test_every_key_is_described(self, tier: str) -> None:
        rows = describe(TIERS[tier])

        assert all(row.description.endswith((".", "`.")) for row in rows)
        assert all(row.type and row.default and row.environment for row in rows)

    def test_the_json_schema_refuses_unknown_keys(self, tier: str) -> None:
        schema = json_schema(TIERS[tier])

        assert all(part["additionalProperties"] is False for part in schema["$defs"].values())

    def test_passwords_are_not_shown(self, tier: str) -> None:
        settings, _ = load(
            TIERS[tier],
            file=None,
            environment={"TIERWISE_BROKER__PASSWORD": "hunter2"},
            flags=NAMED[tier],
        )

        assert shown_values(settings)["broker.password"] == HIDDEN

    def test_an_empty_password_is_shown_as_empty(self, tier: str) -> None:
        assert shown_values(TIERS[tier](**NAMED[tier]))["broker.password"] == ""


def test_ports_and_folders_differ_so_that_the_tiers_fit_on_one_machine() -> None:
    every = [shown_values(TIERS[tier](**NAMED[tier])) for tier in TIERS]

    assert len({values["http.port"] for values in every}) == 3
    assert len({values["state.folder"] for values in every}) == 3


@pytest.mark.parametrize("name", ["a", "A-1._x", "x" * 64])
def test_an_id_that_topics_take_is_taken(name: str) -> None:
    settings, _ = load(CloudSettings, file=None, environment={}, flags={"cloud": name})

    assert settings.cloud == topics.check_name(name)


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a+", "x" * 65, "a\n", "é"])
def test_an_id_that_topics_refuse_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no usable id"):
        topics.check_name(name)
    with pytest.raises(SettingsError, match="expected text, 1 to 64 letters"):
        load(CloudSettings, file=None, environment={}, flags={"cloud": name})


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["request.default_budget_ms=200", "request.max_budget_ms=100"], "is over max_budget_ms"),
        (["broker.tls_cert_file=a"], "go together"),
        (["broker.tls_cert_file=a", "broker.tls_key_file=b"], "needs tls_ca_file"),
        (["model.accept_at=1.5"], "expected number or empty, >= 0 and <= 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(flags: list[str], wanted: str) -> None:
    with pytest.raises(SettingsError, match=wanted):
        load(CloudSettings, file=None, environment={}, flags=["cloud=c", *flags])


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["tier=regional-2", "upstream.tier=regional-2"], "is not above tier regional-2"),
        (["upstream.tier=edge"], "regional-2"),
        (["upstream.region=plant"], "give every tier its region"),
        (["regions_below=south"], "devices only"),
        (["tier=regional-2", "regions_below=plant"], "own region"),
        (["tier=regional-2", "regions_below=cloud"], "the one above"),
    ],
)
def test_a_gateway_asks_upwards_and_in_another_region(flags: list[str], wanted: str) -> None:
    with pytest.raises(SettingsError, match=wanted):
        load(
            GatewaySettings,
            file=None,
            environment={},
            flags=["gateway=g", "region=plant", *flags],
        )


@pytest.mark.parametrize(
    "url", ["cloud:8472", "ftp://cloud", "http://", "http://cloud?a=b", "s3://x"]
)
def test_a_mirror_s_upstream_is_an_http_address(url: str) -> None:
    with pytest.raises(SettingsError, match="http:// or https://"):
        load(
            GatewaySettings,
            file=None,
            environment={},
            flags=["gateway=g", "region=plant", f"updates.upstream_url={url}"],
        )


def test_nothing_is_handed_out_by_default() -> None:
    assert not CloudSettings(cloud="c").updates.repository
    assert not GatewaySettings(gateway="g", region="r").updates.upstream_url


def test_a_threshold_can_be_given_and_taken_back() -> None:
    given = load(
        CloudSettings,
        file=None,
        environment={"TIERWISE_MODEL__ACCEPT_AT": "0.9"},
        flags=["cloud=c", "model.accept_at="],
    )

    assert given.settings.model.accept_at is None


def test_only_texts_numbers_and_truth_values_are_toml() -> None:
    with pytest.raises(TypeError):
        toml_value(object())


def test_settings_are_frozen() -> None:
    settings = CloudSettings(cloud="c")

    with pytest.raises(AttributeError):
        settings.cloud = "d"  # type: ignore[misc]

    assert isinstance(settings, msgspec.Struct)


def _flat(tree: dict[str, object], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, value in tree.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [prefix + name]
    return found


@pytest.mark.parametrize("names", ["a/b", "a,,b", "a,", ",", "a b", "a\n", "#"])
def test_regions_below_are_names(names: str) -> None:
    flags = ["gateway=g", "region=plant", "tier=regional-2", f"regions_below={names}"]
    with pytest.raises(SettingsError, match="regions_below"):
        load(GatewaySettings, file=None, environment={}, flags=flags)


@pytest.mark.parametrize(
    ("names", "below"), [("", ()), ("a", ("a",)), ("a,b-1, a,  c", ("a", "b-1", "c"))]
)
def test_regions_below_have_commas_between_them(names: str, below: tuple[str, ...]) -> None:
    flags = ["gateway=g", "region=plant", "tier=regional-2", f"regions_below={names}"]

    assert load(GatewaySettings, file=None, environment={}, flags=flags).settings.below == below
