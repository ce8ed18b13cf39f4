"""The doctor finds what is wrong, and names the remedy."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest

from cloud_tier.settings import CloudSettings
from fakes.models import manifest_of, model_folder
from fakes.ports import free_port
from model_zoo.catalog import bundled_model
from regional_gateway.settings import GatewaySettings, UpstreamSettings
from runtime.adapters.artifacts import write_model
from runtime.adapters.broker import start_broker
from runtime.adapters.engine_options import EngineOptions
from runtime.adapters.paho_bus import BrokerAddress
from runtime.common_settings import BrokerSettings, ModelSettings
from runtime.manifest import Member
from tierwise import doctor
from tierwise.cli import main


class Usage(NamedTuple):
    """As shutil.disk_usage gives it."""

    total: int
    used: int
    free: int


@contextmanager
def mute_listener() -> Iterator[BrokerAddress]:
    """Somebody who takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[socket.socket] = []
        thread = threading.Thread(target=lambda: accepted.append(server.accept()[0]), daemon=True)
        thread.start()
        yield BrokerAddress("127.0.0.1", server.getsockname()[1])
    for connection in accepted:
        connection.close()


def test_python() -> None:
    assert doctor.check_python().status == "ok"
    assert doctor.check_python((3, 10, 4)).status == "problem"


def test_the_engine_of_the_bundled_model_is_named() -> None:
    finding = doctor.check_engines(None, EngineOptions(providers=("auto",)))

    assert (finding.check, finding.status, finding.remedy) == ("engines", "ok", "")
    assert finding.found.startswith("edge: onnxruntime ")
    assert finding.found.endswith("on CPUExecutionProvider")


def test_a_wish_that_is_not_there_is_a_warning_with_the_reason() -> None:
    finding = doctor.check_engines(None, EngineOptions(providers=("cuda",)))

    assert finding.status == "warning"
    assert "not CUDAExecutionProvider: it is not in this onnxruntime" in finding.found
    assert "driver" in finding.remedy


def test_a_model_that_no_engine_runs_is_a_problem(tmp_path: Path) -> None:
    model_folder(tmp_path, {"tiny.tflite": b"garbage"})

    finding = doctor.check_engines(tmp_path, EngineOptions())

    assert finding.status == "problem"
    assert "not a model that LiteRT can run" in finding.found


def test_a_server_that_is_away_is_a_warning(tmp_path: Path) -> None:
    member = Member("far", url=f"http://127.0.0.1:{free_port()}", model="tiny")
    write_model(tmp_path, manifest_of({}, members=(member,)), {})

    finding = doctor.check_engines(tmp_path, EngineOptions())

    assert finding.status == "warning"
    assert "far: oip on nothing (not http://127.0.0.1" in finding.found
    assert "look at that server" in finding.remedy


def test_packages_that_are_there() -> None:
    finding = doctor.check_packages()

    assert finding.status == "ok"
    assert "onnxruntime" in finding.found


def test_a_package_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)

    finding = doctor.check_packages()

    assert finding.status == "problem"
    assert "aiohttp" in finding.found


def test_extras_are_never_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"demo": ("no-such-distribution",)})

    assert doctor.check_extras() == ("extras", "ok", "demo: no no-such-distribution", "")


def test_import_names_are_ours() -> None:
    (finding,) = doctor.check_names()

    assert finding.status == "ok"


def test_a_stray_folder_that_is_found_first_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray = tmp_path / "hardware_profiles"
    stray.mkdir()
    (stray / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hardware_profiles", raising=False)

    (finding,) = doctor.check_names()

    assert finding.status == "problem"
    assert f"`hardware_profiles` is imported from {stray}" in finding.found


def test_another_distribution_of_the_same_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = {"runtime": ["tierwise", "somebody"]}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: owners)

    (finding,) = doctor.check_names()

    assert finding.status == "problem"
    assert "`runtime` is also installed by somebody" in finding.found


def test_a_package_that_is_not_there_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PRODUCT", ("no_such_package",))

    (finding,) = doctor.check_names()

    assert "`no_such_package` is missing" in finding.found


def test_a_broker_that_works(tmp_path: Path) -> None:
    with start_broker(tmp_path) as broker:
        finding = doctor.check_broker("broker", broker.address, is_configured=True)

    assert finding.status == "ok"
    assert "TCP_NODELAY is set" in finding.found


def test_a_configured_broker_that_is_not_there() -> None:
    address = BrokerAddress("127.0.0.1", free_port())

    finding = doctor.check_broker("broker", address, is_configured=True)

    assert finding.status == "problem"
    assert "broker.host" in finding.remedy


def test_a_broker_that_nobody_asked_for_may_be_missing() -> None:
    address = BrokerAddress("127.0.0.1", free_port())

    assert doctor.check_broker("broker", address, is_configured=False).status == "ok"


def test_somebody_who_does_not_speak_mqtt_5(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CONNECT_S", 0.3)
    with mute_listener() as address:
        finding = doctor.check_broker("broker", address, is_configured=True)

    assert finding.status == "problem"
    assert "does not let us in over MQTT 5" in finding.found


def test_the_local_broker_really_starts() -> None:
    assert doctor.check_local_broker().status == "ok"


def test_no_local_broker_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERWISE_MOSQUITTO", "/no/such/mosquitto")

    assert doctor.check_local_broker().status == "warning"


def test_bundled_models() -> None:
    finding = doctor.check_models(None)

    assert finding.status == "ok"
    assert "cloud fashion" in finding.found


def test_a_damaged_model(tmp_path: Path) -> None:
    folder = tmp_path / "edge"
    shutil.copytree(bundled_model("edge"), folder)
    (model,) = folder.glob("*.onnx")
    model.write_bytes(model.read_bytes()[:-1])

    finding = doctor.check_models(folder)

    assert finding.status == "problem"
    assert "truncated" in finding.found
    assert "model.folder" in finding.remedy


class FakeTime:
    """A wall clock that may run at another speed than the monotonic one."""

    def __init__(self, wall_s: float, speed: float = 1.0) -> None:
        self.wall, self.monotonic, self.speed = wall_s, 0.0, speed

    def wait(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds * self.speed

    def wall_s(self) -> float:
        return self.wall

    def monotonic_s(self) -> float:
        return self.monotonic


@pytest.mark.parametrize(
    ("fake", "status"),
    [
        (FakeTime(1.8e9), "ok"),
        (FakeTime(0.0), "problem"),
        (FakeTime(1.8e9, speed=10), "warning"),
        (FakeTime(1.8e9, speed=-10), "warning"),
    ],
)
def test_clock(fake: FakeTime, status: str) -> None:
    finding = doctor.check_clock(fake.wall_s, fake.monotonic_s, fake.wait)

    assert finding.status == status


def test_a_state_folder_that_is_there_and_one_that_can_be_made(tmp_path: Path) -> None:
    assert "can be written" in doctor.check_state_folder(tmp_path).found
    assert "can be made" in doctor.check_state_folder(tmp_path / "a" / "b").found
    assert not (tmp_path / "a").exists()


def test_a_state_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    finding = doctor.check_state_folder(tmp_path / "file" / "state")

    assert finding.status == "problem"
    assert "state.folder" in finding.remedy


@pytest.mark.parametrize(
    ("free", "status"), [(1 << 40, "ok"), (1 << 29, "warning"), (1 << 20, "problem")]
)
def test_disk(tmp_path: Path, free: int, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 41, 0, free))

    assert doctor.check_disk(tmp_path / "missing").status == status


def test_a_gateway_has_two_brokers() -> None:
    settings = GatewaySettings(
        gateway="g",
        region="r",
        upstream=UpstreamSettings(broker=BrokerSettings(host="cloud.example", port=8883)),
        model=ModelSettings(folder="/models/x"),
    )

    place = doctor.place_of(settings)

    assert [purpose for purpose, _ in place.brokers] == ["broker", "upstream broker"]
    assert str(place.brokers[1][1]) == "cloud.example:8883"
    assert place.model_folder == Path("/models/x")


def test_the_cloud_has_one() -> None:
    place = doctor.place_of(CloudSettings(cloud="c"))

    assert len(place.brokers) == 1
    assert place.is_configured


class TestCommand:
    def test_a_healthy_place_is_code_0(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        with start_broker(tmp_path) as broker:
            code = main(
                [
                    "doctor", "--tier", "cloud", "--json",
                    "--set", "cloud=c",
                    "--set", f"broker.port={broker.address.port}",
                    "--set", f"state.folder={tmp_path}",
                ]
            )  # fmt: skip

        report = json.loads(capsys.readouterr().out)
        assert (code, report["ok"]) == (0, True)
        assert [one["check"] for one in report["checks"]][:4] == [
            "python", "packages", "extras", "import names",
        ]  # fmt: skip

    def test_a_problem_is_code_1_and_its_remedy_is_printed(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        port = f"broker.port={free_port()}"

        code = main(["doctor", "--tier", "cloud", "--set", "cloud=c", "--set", port])

        captured = capsys.readouterr()
        assert code == 1
        assert "broker: start the broker there" in captured.out
        assert captured.err == ""

    def test_settings_without_a_tier_are_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", "--set", "cloud=c"]) == 2

        assert "whose settings are they?" in capsys.readouterr().err
