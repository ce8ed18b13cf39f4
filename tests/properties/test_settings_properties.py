"""Whatever the values: sources keep their order, and text comes back as what was written."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge_agent.settings import EdgeSettings
from runtime.errors import SettingsError
from runtime.settings import load
from runtime.settings_keys import keys, nearest
from runtime.settings_reference import toml_value

BASE = {"agent": "a", "region": "r"}
KEYS = sorted(key.name for key in keys(EdgeSettings))
ports = st.integers(1, 65535)
# No surrogates: neither TOML nor an environment has them.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(default=st.none(), variable=st.none() | ports, flag=st.none() | ports)
def test_the_last_source_that_speaks_wins(
    default: None, variable: int | None, flag: int | None
) -> None:
    environment = {} if variable is None else {"TIERWISE_BROKER__PORT": str(variable)}
    flags = dict(BASE) if flag is None else {**BASE, "broker.port": flag}

    settings, origins = load(EdgeSettings, file=default, environment=environment, flags=flags)

    spoken = [value for value in (1883, variable, flag) if value is not None]
    assert settings.broker.port == spoken[-1]
    assert origins["broker.port"].source == (
        "flag" if flag else "environment" if variable else "default"
    )


@given(texts)
def test_any_text_survives_the_environment(text: str) -> None:
    quoted = toml_value(text)

    settings, _ = load(
        EdgeSettings, file=None, environment={"TIERWISE_BROKER__PASSWORD": quoted}, flags=BASE
    )

    assert settings.broker.password == text


@given(st.one_of(texts, st.booleans(), st.integers(), st.floats(allow_nan=False)))
def test_a_written_value_reads_back_the_same(value: object) -> None:
    assert tomllib.loads(f"v = {toml_value(value)}") == {"v": value}


@given(st.sampled_from(KEYS), texts)
def test_whatever_a_variable_says_there_are_settings_or_a_clear_error(key: str, text: str) -> None:
    variable = "TIERWISE_" + key.replace(".", "__").upper()
    flags = {name: value for name, value in BASE.items() if name != key}

    try:
        load(EdgeSettings, file=None, environment={variable: text}, flags=flags)
    except SettingsError as refused:
        told = str(refused)
    else:
        told = variable

    assert variable in told or key.partition(".")[0] in told


@given(st.sampled_from(KEYS), st.data())
def test_a_key_with_one_letter_gone_is_refused_and_the_right_one_named(
    key: str, data: st.DataObject
) -> None:
    position = data.draw(st.integers(1, len(key) - 1))
    misspelt = key[:position] + key[position + 1 :]
    # A shorter key may be a key, too, or lie nearer to another one.
    assume(misspelt not in KEYS)
    assume(nearest(misspelt, KEYS) == key)

    with pytest.raises(SettingsError, match=rf"unknown setting.*{key}"):
        load(EdgeSettings, file=None, environment={}, flags={**BASE, misspelt: 1})
