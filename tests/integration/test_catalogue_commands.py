"""``tierwise keys`` and ``tierwise models``: what they do, refuse, and say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_tier.keys import load_rollout_signer, write_key
from fakes.catalogue import Cloud
from fakes.models import linear_model, manifest_of
from runtime.adapters.artifacts import write_model
from runtime.manifest import Measured
from tierwise.catalogue_access import PASSPHRASE
from tierwise.cli import main

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PASSPHRASE, "open sesame")


@pytest.fixture
def repository(capsys: Output) -> Path:
    """A repository with encrypted keys beside it."""
    assert main(["keys", "init"]) == 0
    capsys.readouterr()
    return Path("repository")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return folder(tmp_path / "model")


def folder(path: Path, weight: float = 1.0, **changes: Any) -> Path:
    files = {"tiny.onnx": linear_model(np.array([[weight, -1], [2, 0], [0, 3]], np.float32))}
    write_model(path, manifest_of(files, **changes), files)
    return path


def publish(path: Path, *words: str) -> int:
    return main(["models", "publish", str(path), "--model", "tiny", "--without-policy", *words])


def said(capsys: Output, *words: str) -> Any:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def held_set(path: Path, *, is_right: bool) -> Path:
    """Examples that the tiny model answers all rightly, or all wrongly."""
    inputs = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    weights = np.array([[1, -1], [2, 0], [0, 3]], np.float32)
    labels = (inputs @ weights).argmax(axis=1)
    np.savez(path, x=inputs, labels=labels if is_right else 1 - labels)
    return path


def is_open(path: Path) -> bool:
    return "ENCRYPTED" not in path.read_text()


class TestKeys:
    def test_init_makes_keys_that_only_their_owner_reads(self, capsys: Output) -> None:
        made = said(capsys, "keys", "init", "--keys", "5", "--threshold", "3")

        assert len(made["keys"]) == 8
        assert made["encrypted"] is True
        assert {Path(one).stat().st_mode & 0o777 for one in made["keys"]} == {0o600}
        assert all("ENCRYPTED" in Path(one).read_text() for one in made["keys"])

    def test_init_writes_over_nothing(self, repository: Path, capsys: Output) -> None:
        assert main(["keys", "init", "--folder", "other"]) == 3
        assert "already" in capsys.readouterr().err
        assert main(["keys", "init", "--repository", "other"]) == 3
        assert "not empty" in capsys.readouterr().err
        assert repository.is_dir()

    @pytest.mark.parametrize("passphrase", ["", "   "])
    def test_an_empty_passphrase_is_refused(
        self, passphrase: str, monkeypatch: pytest.MonkeyPatch, capsys: Output
    ) -> None:
        monkeypatch.setenv(PASSPHRASE, passphrase)

        assert main(["keys", "init"]) == 3
        assert "--unencrypted" in capsys.readouterr().err
        assert not Path("keys").exists()

    def test_without_a_terminal_a_passphrase_is_asked_for_in_vain(self) -> None:
        environment = {key: one for key, one in os.environ.items() if key != PASSPHRASE}
        ran = subprocess.run(
            [sys.executable, "-m", "tierwise", "keys", "init"],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=environment,
            timeout=15,
            check=False,
        )

        assert ran.returncode == 3
        assert PASSPHRASE in ran.stderr

    def test_keys_without_a_passphrase_have_to_be_asked_for(
        self, monkeypatch: pytest.MonkeyPatch, capsys: Output
    ) -> None:
        monkeypatch.delenv(PASSPHRASE)

        assert said(capsys, "keys", "init", "--unencrypted")["encrypted"] is False
        assert main(["keys", "renew", "online"]) == 0

    @pytest.mark.usefixtures("repository")
    def test_a_wrong_passphrase_is_said(
        self, monkeypatch: pytest.MonkeyPatch, capsys: Output
    ) -> None:
        monkeypatch.setenv(PASSPHRASE, "guess")

        assert main(["keys", "renew", "online"]) == 3
        assert "passphrase is wrong" in capsys.readouterr().err

    @pytest.mark.usefixtures("repository")
    def test_status_warns_of_keys_that_others_read_and_that_lie_together(
        self, capsys: Output
    ) -> None:
        (online,) = Path("keys").glob("online-*.pem")
        online.chmod(0o644)

        assert main(["keys", "status", "--json"]) == 1

        status = json.loads(capsys.readouterr().out)
        assert f"chmod 600 {online}" in status["warnings"][0]
        assert "beside the online key" in status["warnings"][1]
        assert [one["role"] for one in status["roles"]] == [
            "root", "targets", "snapshot", "timestamp", "rollout",
        ]  # fmt: skip

    @pytest.mark.usefixtures("repository")
    def test_status_is_content_when_the_root_keys_are_elsewhere(self, capsys: Output) -> None:
        Path("stick").mkdir()
        for path in Path("keys").glob("root-*.pem"):
            shutil.move(path, "stick")

        assert main(["keys", "status"]) == 0
        # Also where it is told of them: they do not lie together.
        assert main(["keys", "status", "--keys", "keys", "--keys", "stick"]) == 0
        assert capsys.readouterr().err == ""

    def test_the_rollout_key_alone_may_lie_open_and_that_is_said(self, capsys: Output) -> None:
        assert main(["keys", "init", "--rollout-unencrypted"]) == 0

        assert "whoever reads the file can assign" in capsys.readouterr().err
        open_files = [path for path in Path("keys").glob("*.pem") if is_open(path)]
        assert [path.name.partition("-")[0] for path in open_files] == ["rollout"]
        load_rollout_signer(open_files[0])

    @pytest.mark.usefixtures("repository")
    def test_a_rollout_key_is_exchanged_for_one_that_status_shows(self, capsys: Output) -> None:
        (old,) = Path("keys").glob("rollout-*.pem")

        assert main(["keys", "rotate", "rollout", "--unencrypted"]) == 0

        (new,) = set(Path("keys").glob("rollout-*.pem")) - {old}
        assert is_open(new)
        capsys.readouterr()
        main(["keys", "status", "--json"])
        (row,) = [
            one for one in json.loads(capsys.readouterr().out)["roles"] if one["role"] == "rollout"
        ]
        assert row["keys"] == row["keys_here"] == [load_rollout_signer(new).public_key.keyid]
        main(["keys", "status"])
        (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("rollout")]
        assert line.split()[1:] == ["-", row["keys"][0][:8], "-", "1", "1", "1"]

    @pytest.mark.usefixtures("repository")
    def test_there_is_one_rollout_role_and_it_signs_no_metadata(self, capsys: Output) -> None:
        before = sorted(Path("keys").iterdir())

        assert main(["keys", "add-rollout"]) == 3
        assert "rotate rollout" in capsys.readouterr().err
        assert main(["keys", "renew", "rollout"]) == 3
        assert "signs no metadata" in capsys.readouterr().err
        assert sorted(Path("keys").iterdir()) == before

    def test_a_repository_of_before_gets_its_rollout_key(
        self, tmp_path: Path, capsys: Output
    ) -> None:
        cloud = Cloud(tmp_path / "old")
        for role, signer in {"targets": cloud.targets, "online": cloud.online}.items():
            write_key(tmp_path / "sticks", role, (signer._private_key, signer), None)  # type: ignore[arg-type]
        (tmp_path / "sticks" / "root.json").write_bytes(cloud.root)
        words = ["--repository", str(cloud.folder), "--keys", str(tmp_path / "sticks")]

        assert main(["keys", "rotate", "rollout", *words]) == 3
        assert "add-rollout" in capsys.readouterr().err
        shown = said(capsys, "keys", "status", *words)
        assert "rollout" not in [one["role"] for one in shown["roles"]]
        assert main(["keys", "add-rollout", *words]) == 0

        shown = said(capsys, "keys", "status", *words)
        assert shown["roles"][-1]["role"] == "rollout"

    @pytest.mark.usefixtures("repository")
    @pytest.mark.parametrize("role", ["online", "targets", "root", "rollout"])
    def test_rotate_and_renew_go_on_working(self, role: str, model: Path, capsys: Output) -> None:
        assert main(["keys", "rotate", role]) == 0
        assert main(["keys", "renew", {"rollout": "targets"}.get(role, role)]) == 0

        assert publish(model) == 0
        assert said(capsys, "models", "list", "--repository", "repository")["entries"]

    @pytest.mark.usefixtures("repository")
    def test_one_root_key_is_exchanged(self, capsys: Output) -> None:
        first, *_ = sorted(Path("keys").glob("root-*.pem"))
        start = first.stem.removeprefix("root-")

        assert main(["keys", "rotate", "root", "--old", start]) == 0
        assert main(["keys", "rotate", "root", "--old", start]) == 3
        assert "names 0 keys" in capsys.readouterr().err

    @pytest.mark.usefixtures("repository")
    def test_without_root_keys_nothing_is_exchanged(self, capsys: Output) -> None:
        for path in sorted(Path("keys").glob("root-*.pem"))[:2]:
            path.unlink()
        before = sorted(Path("keys").iterdir())

        assert main(["keys", "rotate", "online"]) == 3

        assert "--keys DIR" in capsys.readouterr().err
        assert sorted(Path("keys").iterdir()) == before

    @pytest.mark.usefixtures("repository")
    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (["keys", "renew", "moon"], "moon"),
            (["keys", "renew", "online", "--keys", "nowhere"], "keys init"),
            (["keys", "status", "--repository", "nowhere"], "keys init"),
            (["keys", "add-region", "e/u"], "no name"),
        ],
    )
    def test_errors_say_what_to_do(self, words: list[str], text: str, capsys: Output) -> None:
        assert main(words) == 3
        assert text in capsys.readouterr().err

    @pytest.mark.usefixtures("repository")
    def test_a_file_that_is_no_key_is_said(self, capsys: Output) -> None:
        (online,) = Path("keys").glob("online-*.pem")
        online.write_text("not a key")

        assert main(["keys", "renew", "online"]) == 3
        assert "no private key" in capsys.readouterr().err

    @pytest.mark.usefixtures("repository")
    def test_a_region_publishes_for_itself(self, model: Path, capsys: Output) -> None:
        assert main(["keys", "add-region", "eu"]) == 0
        assert main(["keys", "add-region", "eu"]) == 3
        assert len(list(Path("keys").glob("region-eu-*.pem"))) == 1

        assert publish(model, "--region", "eu") == 0

        listed = said(capsys, "models", "list", "--repository", "repository")
        assert [one["path"] for one in listed["entries"]] == ["region/eu/tiny/1.json"]
        assert main(["keys", "rotate", "region-eu"]) == 0
        assert main(["models", "yank", "region/eu/tiny", "1", "--reason", "no"]) == 0


@pytest.mark.usefixtures("repository")
class TestPublish:
    def test_a_version_is_published_listed_shown_compared_and_withdrawn(
        self, model: Path, tmp_path: Path, capsys: Output
    ) -> None:
        assert publish(model, "--notes", "the first") == 0
        assert publish(folder(tmp_path / "next", weight=2.0)) == 0
        assert "the update takes" in capsys.readouterr().out

        shown = said(capsys, "models", "inspect", "tiny", "1")
        assert shown["notes"] == "the first"
        assert set(shown["variants"]["default"]["files"]) == {
            "manifest.json", "tiny.onnx", "golden.npz",
        }  # fmt: skip
        changed = said(capsys, "models", "diff", "tiny", "1", "2")["variants"]["default"]
        assert {one["file"] for one in changed} == {"tiny.onnx", "golden.npz"}
        assert said(capsys, "models", "yank", "tiny", "2", "--reason", "worse")
        listed = said(capsys, "models", "list", "--repository", "repository")
        assert [one["version"] for one in listed["entries"]] == [1]
        assert listed["withdrawn"][0]["reason"] == "worse"
        for words in (["list"], ["inspect", "tiny"]):
            assert main(["models", *words, "--repository", "repository"]) == 0
        assert "withdrawn: tiny/2.json" in capsys.readouterr().out

    def test_the_published_manifest_has_the_catalogues_version(
        self, model: Path, capsys: Output
    ) -> None:
        assert publish(model, "--version", "7") == 0

        variant = said(capsys, "models", "inspect", "tiny")["variants"]["default"]
        blob = Path("repository/blobs") / variant["files"]["manifest.json"]["sha256"]
        assert json.loads(blob.read_text())["version"] == "7"

    @pytest.mark.parametrize("version", ["1", "0", "-1"])
    def test_a_version_that_is_not_above_is_refused(
        self, model: Path, version: str, capsys: Output
    ) -> None:
        assert publish(model) == 0

        assert publish(model, "--version", version) == 1
        assert "next one is 2" in capsys.readouterr().err

    def test_a_file_of_another_digest_is_refused(self, model: Path, capsys: Output) -> None:
        path = model / "tiny.onnx"
        path.write_bytes(path.read_bytes()[:-1] + b"x")

        assert publish(model) == 3
        assert "digest" in capsys.readouterr().err

    def test_a_file_that_does_not_load_is_refused(self, tmp_path: Path, capsys: Output) -> None:
        files = {"tiny.onnx": b"not a model"}
        write_model(tmp_path / "broken", manifest_of(files), files)

        assert publish(tmp_path / "broken") == 3
        assert "not a model that ONNX Runtime can run" in capsys.readouterr().err

    def test_other_inputs_than_the_manifests_are_refused(
        self, tmp_path: Path, capsys: Output
    ) -> None:
        files = {"tiny.onnx": linear_model(input_name="y")}
        write_model(tmp_path / "other", manifest_of(files), files)

        assert publish(tmp_path / "other") == 3
        assert "the manifest promises the input" in capsys.readouterr().err

    @pytest.mark.parametrize("golden", [b"", b"PK garbage", None])
    def test_golden_examples_that_are_not_reproduced_are_refused(
        self, model: Path, tmp_path: Path, golden: bytes | None, capsys: Output
    ) -> None:
        assert publish(folder(tmp_path / "next", weight=9.0)) == 0
        if golden is None:
            shown = said(capsys, "models", "inspect", "tiny")["variants"]["default"]["files"]
            golden = (Path("repository/blobs") / shown["golden.npz"]["sha256"]).read_bytes()
        (model / "golden.npz").write_bytes(golden)

        assert publish(model) == 3
        assert "golden" in capsys.readouterr().err

    def test_golden_examples_that_are_reproduced_go_along(
        self, model: Path, capsys: Output
    ) -> None:
        assert publish(model) == 0
        shown = said(capsys, "models", "inspect", "tiny")["variants"]["default"]["files"]
        blob = Path("repository/blobs") / shown["golden.npz"]["sha256"]
        shutil.copyfile(blob, model / "golden.npz")

        assert publish(model) == 0
        assert "golden outputs are reproduced" in capsys.readouterr().out

    def test_accuracy_below_what_the_manifest_promises_is_refused(
        self, tmp_path: Path, capsys: Output
    ) -> None:
        measured = Measured(0.9, 100, 0.1, 0.1, 8, 100)
        path = folder(tmp_path / "measured", measured=measured)
        wrong = held_set(tmp_path / "wrong.npz", is_right=False)
        right = held_set(tmp_path / "right.npz", is_right=True)

        assert publish(path, "--held-set", str(wrong)) == 1
        assert "stands for 90.00%" in capsys.readouterr().err
        assert publish(path, "--held-set", str(right)) == 0
        assert "accuracy 100.00% on right.npz" in capsys.readouterr().out

    def test_without_labelled_data_it_says_that_accuracy_was_not_checked(
        self, model: Path, capsys: Output
    ) -> None:
        assert publish(model) == 0
        assert "accuracy is not checked" in capsys.readouterr().out

    def test_a_policy_is_there_or_is_declined(self, model: Path, capsys: Output) -> None:
        words = ["models", "publish", str(model), "--model", "tiny"]

        assert main(words) == 3
        assert "--without-policy" in capsys.readouterr().err
        Path("policy.json").write_text("{}")
        assert main([*words, "--policy", "policy.json"]) == 1
        assert "policy" in capsys.readouterr().err

    def test_another_name_is_refused(self, model: Path, capsys: Output) -> None:
        assert main(["models", "publish", str(model), "--model", "huge", "--without-policy"]) == 3
        assert "--model tiny or tiny-edge" in capsys.readouterr().err

    def test_another_tier_is_refused(self, model: Path, tmp_path: Path, capsys: Output) -> None:
        assert publish(model) == 0

        assert publish(folder(tmp_path / "cloud", tier="cloud")) == 3
        assert "--model tiny-cloud" in capsys.readouterr().err

    def test_variants_of_one_version_are_published_together(
        self, model: Path, tmp_path: Path, capsys: Output
    ) -> None:
        other = folder(tmp_path / "other", weight=3.0)

        assert publish(model, "--also", "big", str(other), "--hardware", "aarch64") == 0
        assert publish(model, "--also", "default", str(other)) == 3
        assert "given twice" in capsys.readouterr().err

        variants = said(capsys, "models", "inspect", "tiny", "1")["variants"]
        assert set(variants) == {"default", "big"}
        assert variants["default"]["requirements"]["hardware"] == ["aarch64"]

    def test_a_variant_that_is_another_by_name_alone_is_refused(
        self, model: Path, tmp_path: Path, capsys: Output
    ) -> None:
        same = shutil.copytree(model, tmp_path / "same")

        assert publish(model, "--also", "big", str(same)) == 3
        assert "two variants have the same manifest" in capsys.readouterr().err

    def test_nothing_is_written_when_a_check_fails(self, model: Path) -> None:
        before = sorted(Path("repository").rglob("*"))
        (model / "tiny.onnx").unlink()

        assert publish(model) == 3

        assert [one for one in sorted(Path("repository").rglob("*")) if one.name != "lock"] == [
            one for one in before if one.name != "lock"
        ]

    def test_what_is_not_published_is_said_with_what_is(self, capsys: Output) -> None:
        assert main(["models", "inspect", "tiny"]) == 1
        assert "versions that are: none" in capsys.readouterr().err
        assert main(["models", "yank", "tiny", "4", "--reason", "no"]) == 1
        assert "is not published" in capsys.readouterr().err


def test_a_second_publisher_in_another_process_is_told_to_wait(
    repository: Path, model: Path
) -> None:
    from runtime.adapters.filesystem import LocalFiles  # noqa: PLC0415

    first = LocalFiles(repository)
    assert first.lock("lock")
    command = [sys.executable, "-m", "tierwise", "models", "publish", str(model)]
    ran = subprocess.run(
        [*command, "--model", "tiny", "--without-policy", "--json"],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    first.unlock()

    assert ran.returncode == 3
    assert "somebody else" in json.loads(ran.stderr)["error"]["message"]
