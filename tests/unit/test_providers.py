from __future__ import annotations

import pytest

from runtime.core.providers import CPU, PROVIDERS, EngineReport, Skipped, plan

TENSORRT, CUDA, OPENVINO = (PROVIDERS[name] for name in ("tensorrt", "cuda", "openvino"))
AZURE = "AzureExecutionProvider"


@pytest.mark.parametrize(
    ("wished", "available", "taken"),
    [
        ((), {CPU}, (CPU,)),
        (("auto",), {AZURE, CPU}, (CPU,)),
        (("auto",), {CPU, OPENVINO, CUDA, TENSORRT}, (TENSORRT, CUDA, OPENVINO, CPU)),
        (("openvino", "auto"), {CPU, OPENVINO, CUDA}, (OPENVINO, CUDA, CPU)),
        (("OpenVINO",), {CPU, OPENVINO}, (OPENVINO, CPU)),
        ((OPENVINO,), {CPU, OPENVINO}, (OPENVINO, CPU)),
        (("cpu",), {CPU, CUDA}, (CPU,)),
        (("cpu", "cuda"), {CPU, CUDA}, (CUDA, CPU)),
        (("cuda", "cuda"), {CPU, CUDA}, (CUDA, CPU)),
        ((AZURE,), {AZURE, CPU}, (AZURE, CPU)),
    ],
)
def test_the_wish_is_followed_as_far_as_it_goes(
    wished: tuple[str, ...], available: set[str], taken: tuple[str, ...]
) -> None:
    assert plan(wished, available) == (taken, ())


def test_what_is_not_there_is_named_once() -> None:
    taken, skipped = plan(("cuda", "quantum", "cuda"), {CPU})

    assert taken == (CPU,)
    assert [one.name for one in skipped] == [CUDA, "quantum"]


def test_auto_stands_for_what_the_hardware_prefers() -> None:
    taken, skipped = plan(("auto",), {CPU, OPENVINO, CUDA}, preferred=("tensorrt", "openvino"))

    assert taken == (OPENVINO, CPU)
    assert [one.name for one in skipped] == [TENSORRT]


def test_a_report_reads_as_a_sentence() -> None:
    report = EngineReport("onnxruntime 1", ("cuda",), (CUDA, CPU), (Skipped("x", "absent"),))

    assert str(report) == f"onnxruntime 1 on {CUDA}, {CPU} (not x: absent)"
    assert str(report.without(CUDA, "broken")) == (
        f"onnxruntime 1 on {CPU} (not x: absent; not {CUDA}: broken)"
    )
    assert str(EngineReport("none")) == "none on nothing"


@pytest.mark.parametrize(
    ("taken", "is_accelerated"),
    [
        ((), False),
        ((CPU,), False),
        (("XNNPACK", "CPU"), False),
        (("CPU",), False),
        (("server",), False),
        ((CUDA, CPU), True),
        (("EdgeTPU", "CPU"), True),
    ],
)
def test_a_report_says_whether_an_accelerator_is_used(
    taken: tuple[str, ...], *, is_accelerated: bool
) -> None:
    assert EngineReport("e", taken=taken).is_accelerated is is_accelerated


def test_after_a_fallback_the_report_still_says_what_was_wished_for() -> None:
    before = EngineReport("e", ("auto", "x"), (CUDA, CPU), (Skipped("x", "absent"),))

    after = EngineReport("e", ("cpu",), (CPU,)).after(before, "it broke")

    assert after.wished == ("auto", "x")
    assert after.taken == (CPU,)
    assert after.skipped == (Skipped("x", "absent"), Skipped(CUDA, "it broke"))
