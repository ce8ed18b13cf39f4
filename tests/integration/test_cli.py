"""Commands in this process: what they print, and with which code they end."""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import tierwise.cli
from fakes.decisions import decision, escalated, write_log
from runtime.errors import BackendError
from tierwise.cli import main

Output = pytest.CaptureFixture[str]


def said(capsys: Output, *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


class TestConfig:
    def test_check_says_how_many_keys_are_given(self, capsys: Output) -> None:
        assert main(["config", "check", "--tier", "cloud", "--set", "cloud=c"]) == 0

        assert "the cloud settings are usable: 1 of " in capsys.readouterr().out

    def test_check_as_json_says_where_values_come_from(self, capsys: Output) -> None:
        result = said(capsys, "config", "check", "--tier", "cloud", "--set", "cloud=c")

        assert result["usable"] is True
        assert result["given"] == {"cloud": "flag --set"}

    def test_settings_that_are_not_usable_are_code_2(self, capsys: Output) -> None:
        code = main(["config", "check", "--tier", "cloud", "--set", "cluod=c"])

        assert code == 2
        assert "did you mean 'cloud'?" in capsys.readouterr().err

    def test_with_json_errors_are_json_too(self, capsys: Output) -> None:
        code = main(["config", "check", "--tier", "cloud", "--json"])

        captured = capsys.readouterr()
        assert (code, captured.out) == (2, "")
        assert json.loads(captured.err)["error"]["code"] == "invalid_settings"

    def test_show_lists_value_and_origin_and_hides_secrets(
        self, capsys: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "cloud.toml"
        file.write_text('cloud = "c"\n')
        monkeypatch.setenv("TIERWISE_BROKER__PASSWORD", "hunter2")

        assert main(["config", "show", "--tier", "cloud", "--file", str(file)]) == 0

        out = capsys.readouterr().out
        lines = {line.split()[0]: line for line in out.splitlines()}
        assert f"file {file}" in lines["cloud"]
        assert "(hidden)" in lines["broker.password"]
        assert "environment TIERWISE_BROKER__PASSWORD" in lines["broker.password"]
        assert "(not set)" in lines["model.accept_at"]
        assert "hunter2" not in out

    def test_show_as_json(self, capsys: Output) -> None:
        shown = said(capsys, "config", "show", "--tier", "cloud", "--set", "cloud=c")

        assert shown["broker.port"] == {"value": 1883, "origin": "default"}

    def test_schema_as_a_table(self, capsys: Output) -> None:
        assert main(["config", "schema", "--tier", "edge"]) == 0

        assert "Latency budget of a request that states none" in capsys.readouterr().out

    def test_schema_as_json_schema(self, capsys: Output) -> None:
        schema = said(capsys, "config", "schema", "--tier", "gateway")

        assert "UpstreamSettings" in schema["$defs"]

    @pytest.mark.parametrize("tier", ["edge", "gateway", "cloud"])
    def test_schema_as_toml_is_the_example(
        self, capsys: Output, tier: str, repository: Path
    ) -> None:
        assert main(["config", "schema", "--tier", tier, "--toml"]) == 0

        example = repository / "examples" / "config" / f"{tier}.toml"
        assert capsys.readouterr().out == example.read_text()


class TestEscalations:
    @pytest.fixture
    def state(self, tmp_path: Path) -> Path:
        now = time.time()
        write_log(
            tmp_path / "edge",
            decision("r1", wall_s=now - 7200),
            decision("r2", wall_s=now),
            escalated("r3", wall_s=now),
            escalated("r4", wall_s=now, answered_by="edge", outcome="degraded"),
        )
        return tmp_path

    def ask(self, state: Path, *words: str) -> list[str]:
        return ["metrics", "escalations", "--state", str(state), *words]

    def test_as_a_table(self, capsys: Output, state: Path) -> None:
        assert main(self.ask(state, "--by", "tier,model,reason,region")) == 0

        head, *rows = capsys.readouterr().out.splitlines()
        assert head.split()[:5] == ["TIER", "MODEL", "REASON", "REGION", "REQUESTS"]
        assert [row.split()[:7] for row in rows] == [
            ["edge", "fashion", "confident", "north", "2", "2", "0"],
            ["edge", "fashion", "unsure", "north", "2", "1", "2"],
        ]
        assert "100.0%" in rows[1]

    def test_as_json(self, capsys: Output, state: Path) -> None:
        result = said(capsys, *self.ask(state))

        (row,) = result["rows"]
        assert result["by"] == ["tier"]
        assert (row["tier"], row["requests"], row["escalated"]) == ("edge", 4, 2)
        assert (row["escalation_rate"], row["failed_escalations"]) == (0.5, 1)

    def test_as_csv(self, capsys: Output, state: Path) -> None:
        assert main(self.ask(state, "--csv", "--by", "site")) == 0

        (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
        assert (row["site"], row["requests"], row["escalation_rate"]) == ("camera-1", "4", "0.5")

    def test_since_leaves_out_what_is_older(self, capsys: Output, state: Path) -> None:
        result = said(capsys, *self.ask(state, "--since", "1h"))

        assert result["rows"][0]["requests"] == 3

    def test_where_nothing_has_happened_it_says_what_to_do(
        self, capsys: Output, tmp_path: Path
    ) -> None:
        write_log(tmp_path, decision(wall_s=1.0))

        assert main(self.ask(tmp_path, "--since", "1h")) == 0

        assert "send requests, or ask with a longer --since" in capsys.readouterr().err

    def test_without_any_log_it_says_what_to_do(self, capsys: Output, tmp_path: Path) -> None:
        assert main(self.ask(tmp_path)) == 3

        assert "start a tier, or give --state the folder" in capsys.readouterr().err

    def test_a_group_without_confidence_shows_none(self, capsys: Output, tmp_path: Path) -> None:
        write_log(tmp_path, decision(confidence=None))

        assert main(self.ask(tmp_path)) == 0

        assert capsys.readouterr().out.splitlines()[1].split()[-3] == "-"


class TestModels:
    def test_list_shows_digest_size_and_accuracy(self, capsys: Output) -> None:
        assert main(["models", "list"]) == 0

        head, *rows = capsys.readouterr().out.splitlines()
        assert head.split()[:4] == ["TIER", "MODEL", "VERSION", "MEMBER"]
        assert {row.split()[0] for row in rows} == {"edge", "regional", "cloud"}
        assert all("%" in row for row in rows)

    def test_list_as_json_has_whole_digests(self, capsys: Output) -> None:
        models = said(capsys, "models", "list")

        assert [model["tier"] for model in models] == ["edge", "regional", "cloud"]
        assert all(len(digest) == 64 for model in models for digest in model["files"].values())


class TestEnds:
    def run_raising(
        self, monkeypatch: pytest.MonkeyPatch, error: BaseException, *words: str
    ) -> int:
        def fail(_: object) -> int:
            raise error

        monkeypatch.setattr(tierwise.cli, "_run", fail)
        return main(words)

    def test_an_unexpected_error_is_one_line(
        self, monkeypatch: pytest.MonkeyPatch, capsys: Output
    ) -> None:
        code = self.run_raising(monkeypatch, ZeroDivisionError("by zero"))

        assert code == 1
        assert capsys.readouterr().err == (
            "tierwise: unexpected ZeroDivisionError: by zero (--traceback shows where)\n"
        )

    def test_its_traceback_is_shown_when_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ZeroDivisionError):
            self.run_raising(monkeypatch, ZeroDivisionError("by zero"), "--traceback")

    def test_ctrl_c_is_130(self, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
        assert self.run_raising(monkeypatch, KeyboardInterrupt()) == 130
        assert capsys.readouterr().err == ""

    def test_another_error_of_ours_is_1(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.run_raising(monkeypatch, BackendError("model failed")) == 1

    def test_a_usage_error_is_2_and_json_when_asked_for(self, capsys: Output) -> None:
        assert main(["doctro", "--json"]) == 2

        error = json.loads(capsys.readouterr().err)["error"]
        assert error["code"] == "usage"
        assert "did you mean 'doctor'?" in error["message"]


class TestCompletion:
    @pytest.mark.parametrize("shell", ["bash", "zsh"])
    def test_it_knows_the_commands(self, capsys: Output, shell: str) -> None:
        assert main(["completion", shell]) == 0

        assert "escalations" in capsys.readouterr().out

    def test_without_the_extra_it_says_how_to_get_it(
        self, capsys: Output, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "shtab", None)

        assert main(["completion", "bash"]) == 3

        assert "pip install 'tierwise[completion]'" in capsys.readouterr().err
