"""Small parts of the command line: durations, lists, tables."""

from __future__ import annotations

import argparse
import json

import pytest

from tierwise.cli.metrics import dimensions, duration_s
from tierwise.cli.output import say_csv, say_table, tell_error
from tierwise.cli.parser import Parser, UsageError, build_parser


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800), ("1.5h", 5400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "h", "-1h", "1y", "1 h", "1e3s", "1h\n", "inf", "٣s "])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"such as 90s, 15m, 1h, 7d"):
        duration_s(text)


def test_dimensions_are_a_list_without_repetitions() -> None:
    assert dimensions("tier, model,tier,") == ("tier", "model")


def test_an_unknown_dimension_names_the_known_ones() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="choose from tier, model, reason"):
        dimensions("tier,colour")


def test_tables_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    say_table(("NAME", "COUNT"), [("a", "1"), ("longer", "1000")], right=1)

    assert capsys.readouterr().out == "NAME    COUNT\na           1\nlonger   1000\n"


def test_a_table_without_rows_is_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    say_table(("A", "B"), [])

    assert capsys.readouterr().out == "A  B\n"


def test_csv_quotes_what_needs_it(capsys: pytest.CaptureFixture[str]) -> None:
    say_csv(("a", "b"), [("x,y", None)])

    assert capsys.readouterr().out == 'a,b\n"x,y",\n'


def test_errors_are_a_line_each_or_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    tell_error("one\ntwo", code="usage", as_json=False)
    tell_error("one\ntwo", code="usage", as_json=True)

    first, second, third = capsys.readouterr().err.splitlines()
    assert (first, second) == ("tierwise: one", "tierwise: two")
    assert json.loads(third) == {"error": {"code": "usage", "message": "one\ntwo"}}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["dmeo"], "unknown command 'dmeo': did you mean 'demo'?"),
        (["metrics", "escalation"], "did you mean 'escalations'?"),
        (["config", "show", "--tier", "egde"], "unknown --tier 'egde': did you mean 'edge'?"),
        (["completion", "xyz"], "choose from bash, zsh, fish"),
        (["config", "show", "--ti", "edge"], "unrecognized arguments|required: --tier"),
        (["doctor", "--nope"], "unrecognized arguments: --nope\ntry `tierwise doctor --help`"),
        (["demo", "--request=3"], "--request=3: did you mean '--requests'\\?\ntry `tierwise demo"),
        (["explain", "latest", "--stat", "x"], "--stat x: did you mean '--state'?"),
        (["metrics", "--json", "cost"], "unrecognized arguments: --json\ntry `tierwise metrics -"),
        (["metrics", "cost", "--state", "x"], "--state: decision logs answer escalations and"),
        ([], "required: COMMAND"),
    ],
)
def test_an_unknown_word_is_answered_with_the_nearest(words: list[str], wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted) as caught:
        build_parser().parse_args(words)

    assert "--help`" in str(caught.value)


def test_a_value_that_is_a_choice_is_taken() -> None:
    parser = Parser()
    parser.add_argument("--n", type=int, choices=(1, 2))

    assert parser.parse_args(["--n", "2"]).n == 2


@pytest.mark.parametrize("option", ["--by", "--who"])
def test_who_labels_is_said_as_elsewhere(option: str) -> None:
    words = ["review", "label", "i0", "owl", option, "ann"]

    assert build_parser().parse_args(words).who == "ann"
