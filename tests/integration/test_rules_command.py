"""``tierwise policy rules`` and what other commands say of rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fakes.labelled import sampled
from model_zoo.policies.prediction_files import write_predictions
from runtime.adapters.policy_file import read_policy
from tierwise.cli import main

Output = pytest.CaptureFixture[str]
RULES = """
[[rules]]
name = "lens-cap"
when = [{input = "image", statistic = "max", op = "<", value = 0.02}]
answer = "%s"

[[rules]]
name = "night"
when = [{context = "shift", op = "==", value = "night"}, {context = "lux", op = "<", value = 5}]
ask = "cloud"
"""


def run(capsys: Output, *words: object, code: int = 0) -> str:
    assert main([*map(str, words)]) == code
    told = capsys.readouterr()
    return told.err if code else told.out


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted")
    for seed, name in enumerate(("train", "cal"), start=1):
        write_predictions(folder / f"{name}.npz", sampled(seed, 1500))
    (folder / "rules.toml").write_text(RULES % "class1")
    words = ["policy", "fit", "--train", folder / "train.npz", "--cal", folder / "cal.npz"]
    words += ["--max-loss", "0.03", "--rules", folder / "rules.toml"]
    assert main([*map(str, words), "--output", str(folder / "policy.json")]) == 0
    return folder / "policy.json"


def test_a_fit_joins_rules(policy: Path, capsys: Output) -> None:
    names = [rule.name for rule in read_policy(policy).policy.rules]
    shown = run(capsys, "policy", "show", policy)

    assert names == ["lens-cap", "night"]
    assert "max of image < 0.02" in shown
    assert 'shift == "night" and lux < 5.0' in shown


def test_rules_are_a_table_or_json(policy: Path, capsys: Output) -> None:
    table = run(capsys, "policy", "rules", policy)
    plain: dict[str, Any] = json.loads(run(capsys, "policy", "rules", policy, "--json"))

    assert table.splitlines()[0].split() == ["RULE", "WHEN", "THEN"]
    assert "answer class1" in table
    assert plain["digest"] == read_policy(policy).digest
    assert [one["name"] for one in plain["rules"]] == ["lens-cap", "night"]


def test_an_estimate_says_that_rules_play_no_part(
    policy: Path, capsys: Output, tmp_path: Path
) -> None:
    fresh = tmp_path / "fresh.npz"
    write_predictions(fresh, sampled(3, 600))

    assert main(["policy", "eval", "--dataset", str(fresh), "--policy", str(policy)]) == 0

    assert "the 2 rules of policy play no part" in capsys.readouterr().err


def test_other_rules_make_another_policy(policy: Path, capsys: Output, tmp_path: Path) -> None:
    before, new = policy.read_bytes(), tmp_path / "new.json"
    (tmp_path / "none.toml").write_text("rules = []")

    told = run(capsys, "policy", "rules", policy, "--set", tmp_path / "none.toml", "--output", new)

    assert "has no rules" in told
    assert f"written: {new}" in told
    assert policy.read_bytes() == before
    assert read_policy(new).policy.rules == ()
    assert read_policy(new).policy.gears == read_policy(policy).policy.gears


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        (RULES % "Coat", "answers 'Coat', which is no label"),
        ("[[rules]]\nname = 'x'\n", "has no usable rules"),
        (None, "cannot be read"),
    ],
)
def test_rules_for_something_else_are_refused(
    policy: Path, capsys: Output, tmp_path: Path, contents: str | None, says: str
) -> None:
    rules, new = tmp_path / "rules.toml", tmp_path / "new.json"
    if contents is not None:
        rules.write_text(contents)

    told = run(capsys, "policy", "rules", policy, "--set", rules, "--output", new, code=1)

    assert says in told
    assert not new.exists()


def test_the_policy_itself_is_not_changed(policy: Path, capsys: Output) -> None:
    told = run(capsys, "policy", "rules", policy, "--set", "rules.toml", code=1)

    assert "--set and --output go together" in told


def test_a_fallback_order_is_set_and_shown(policy: Path, tmp_path: Path, capsys: Output) -> None:
    rules, changed = tmp_path / "fallback.toml", tmp_path / "changed.json"
    rules.write_text(
        'fallback = ["rules", "abstain"]\n'
        + (RULES % "class2").split("\n\n")[0].replace("[[rules]]", "[[fallback_rules]]")
    )

    run(capsys, "policy", "rules", policy, "--set", rules, "--output", changed)
    table = run(capsys, "policy", "show", changed)
    plain: dict[str, Any] = json.loads(run(capsys, "policy", "rules", changed, "--json"))

    assert "where no answer stands: rules, then abstain" in table
    assert "FALLBACK RULE" in table
    assert plain["fallback"] == ["rules", "abstain"]
    assert [one["name"] for one in plain["fallback_rules"]] == ["lens-cap"]
    refused = run(capsys, "policy", "rules", policy, "--set", tmp_path / "no.toml", "--output",
                  changed, code=1)  # fmt: skip
    assert "cannot be read" in refused
