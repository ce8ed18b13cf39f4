"""Log lines carry the fields of their process."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator

import pytest

from runtime.common_settings import LogSettings
from runtime.logs import configure_logs, get_logger


@pytest.fixture(autouse=True)
def _restored_library_logs() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_every_line_has_the_fields_of_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings(), tier="edge", site="a", region="r")

    get_logger(part="link").info("link.changed", chance=0.5)

    (line,) = lines(capsys)
    assert line["event"] == "link.changed"
    assert line["level"] == "info"
    assert (line["tier"], line["site"], line["region"]) == ("edge", "a", "r")
    assert (line["part"], line["chance"]) == ("link", 0.5)


def test_a_line_may_name_another_site(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings(), site="a")

    get_logger().info("peer.seen", site="b")

    assert lines(capsys)[0]["site"] == "b"


def test_lines_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings(level="warning"))

    get_logger().info("quiet")
    get_logger().warning("loud")

    assert [line["event"] for line in lines(capsys)] == ["loud"]


def test_a_logger_made_before_the_set_up_follows_it(capsys: pytest.CaptureFixture[str]) -> None:
    early = get_logger()
    configure_logs(LogSettings(), tier="cloud")

    early.info("said")

    assert lines(capsys)[0]["tier"] == "cloud"


def test_a_traceback_never_shows_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings())

    fail_with_a_secret()

    (line,) = lines(capsys)
    assert "division by zero" in json.dumps(line)
    assert "hunter2" not in json.dumps(line)


def test_nor_does_it_on_a_console(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings(format="console"))

    fail_with_a_secret()

    written = capsys.readouterr().err
    assert "division by zero" in written
    assert "hunter2" not in written


def fail_with_a_secret() -> None:
    password = "hunter" + "2"
    try:
        assert len(password) / 0
    except ZeroDivisionError:
        get_logger().exception("it.broke")


def test_libraries_are_heard_from_warnings_on(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings(level="debug"), tier="edge")

    logging.getLogger("library").info("chatter")
    logging.getLogger("library").warning("trouble with %s", "disk")

    (line,) = lines(capsys)
    assert (line["event"], line["logger"], line["tier"]) == ("trouble with disk", "library", "edge")


def test_warnings_for_developers_of_libraries_are_kept_quiet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs(LogSettings())

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old interface", DeprecationWarning, stacklevel=1)

    assert lines(capsys) == []
