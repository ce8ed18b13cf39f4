from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from onnx import GraphProto, TensorProto, helper, numpy_helper

from fakes.models import INPUTS, IR_VERSION, OUTPUTS, WEIGHTS, linear_model, manifest_of
from model_zoo.catalog import bundled_model
from runtime.adapters.artifacts import ModelFolder, open_model, write_model
from runtime.adapters.onnx_backend import OnnxBackend, OnnxOptions, load_member, load_members
from runtime.core.providers import CPU, PROVIDERS
from runtime.errors import ArtifactError, BackendError
from runtime.messages import Tensors, TensorSpec, Tier
from runtime.ports import Backend

EXAMPLE: npt.NDArray[Any] = np.array([[1, 2, 3]], np.float32)


def loaded(contents: bytes | None = None, options: OnnxOptions | None = None) -> OnnxBackend:
    contents = linear_model() if contents is None else contents
    return OnnxBackend.load(contents, source="tiny.onnx", options=options)


def serialized(graph: GraphProto) -> bytes:
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    return bytes(model.SerializeToString())


def graph_model(op: str, num_inputs: int = 1, rank: int = 1) -> bytes:
    """A single operator over float32 vectors of any size."""
    names = [f"x{index}" for index in range(num_inputs)]
    sizes = ["n"] * rank
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"])],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name in names],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, sizes)],
    )
    return serialized(graph)


def test_it_computes_what_the_model_says() -> None:
    outputs = loaded().run({"x": EXAMPLE})

    np.testing.assert_array_equal(outputs["logits"], EXAMPLE @ WEIGHTS)
    assert list(outputs) == ["logits"]


def test_it_names_inputs_and_outputs_with_a_free_batch() -> None:
    backend: Backend = loaded()

    assert backend.inputs == INPUTS
    assert backend.outputs == OUTPUTS


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_any_batch_size_runs(batch: int) -> None:
    inputs = np.repeat(EXAMPLE, batch, axis=0)

    assert loaded().run({"x": inputs})["logits"].shape == (batch, 2)


def test_outputs_belong_to_the_caller() -> None:
    backend = loaded()

    first = backend.run({"x": EXAMPLE})["logits"]
    kept = first.copy()
    backend.run({"x": -EXAMPLE})
    first_again = first.copy()
    first[:] = 0

    np.testing.assert_array_equal(first_again, kept)
    np.testing.assert_array_equal(backend.run({"x": EXAMPLE})["logits"], kept)


def test_loading_measures_a_typical_inference() -> None:
    assert 0 < loaded().typical_ms < 5000


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"y": EXAMPLE},
        {"x": EXAMPLE, "more": EXAMPLE},
        {"x": EXAMPLE.astype(np.float64)},
        {"x": np.zeros((1, 4), np.float32)},
        {"x": np.zeros(3, np.float32)},
        {"x": np.array([["a", "b", "c"]])},
    ],
    ids=["none", "other name", "too many", "type", "size", "rank", "text"],
)
def test_inputs_that_do_not_fit_are_a_backend_error(inputs: Tensors) -> None:
    with pytest.raises(BackendError, match=r"tiny\.onnx failed to run: "):
        loaded().run(inputs)


def test_a_model_that_fails_while_running_is_a_backend_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    backend = loaded(graph_model("Add", num_inputs=2))
    sizes: Tensors = {"x0": np.zeros(2, np.float32), "x1": np.zeros(3, np.float32)}

    with pytest.raises(BackendError, match=r"tiny\.onnx failed to run: "):
        backend.run(sizes)

    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"not a model",
        b"<html></html>",
        linear_model()[:100],
        graph_model("NoSuchOperator"),
        graph_model("Add", num_inputs=3),
    ],
    ids=["empty", "text", "page", "truncated", "unknown operator", "invalid graph"],
)
def test_what_is_no_model_is_an_artifact_error(
    contents: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ArtifactError, match=r"tiny\.onnx is not a model that ONNX Runtime can run"):
        loaded(contents)

    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.parametrize(
    ("inputs", "outputs", "complaint"),
    [
        (INPUTS, (TensorSpec("other", "FP32", (-1, 2)),), "promises the output other"),
        (INPUTS, (TensorSpec("logits", "FP16", (-1, 2)),), "logits FP16"),
        (INPUTS, (TensorSpec("logits", "FP32", (-1, 3)),), r"the model has logits FP32\[-1, 2\]"),
        (INPUTS, (*OUTPUTS, TensorSpec("more", "FP32", (1,))), "more FP32"),
        ((TensorSpec("x", "FP32", (-1, 4)),), OUTPUTS, "promises the input x"),
    ],
)
def test_tensors_other_than_the_manifest_promises_are_refused(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], complaint: str
) -> None:
    with pytest.raises(ArtifactError, match=complaint):
        OnnxBackend.load(linear_model(), source="tiny.onnx", expected=(inputs, outputs))


def test_a_fixed_batch_is_not_taken_for_a_free_one() -> None:
    with pytest.raises(ArtifactError, match="the manifest promises"):
        OnnxBackend.load(linear_model(batch=1), source="tiny.onnx", expected=(INPUTS, OUTPUTS))


def test_an_output_of_another_shape_than_announced_is_refused() -> None:
    """The file announces a row for each example and gives two."""
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.array([-1, 2], np.int64), "shape")],
    )

    with pytest.raises(
        ArtifactError, match=r"has shape \[4, 2\] for a batch of 2, where \[-1, 2\]"
    ):
        loaded(serialized(graph))


def test_a_closed_backend_says_so_and_closes_twice() -> None:
    backend = loaded()

    backend.close()
    backend.close()

    with pytest.raises(BackendError, match=r"tiny\.onnx is closed"):
        backend.run({"x": EXAMPLE})


class HeldUp:
    """A session whose runs begin when they may."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.has_begun, self.may_go_on = threading.Event(), threading.Event()

    def run(self, *words: Any) -> Any:
        self.has_begun.set()
        assert self.may_go_on.wait(10)
        return self._session.run(*words)


def test_closing_lets_a_running_inference_finish() -> None:
    backend = load_member(open_model(bundled_model(Tier.REGIONAL)), "regional")
    pixels: npt.NDArray[Any] = np.zeros((20, 28, 28), np.float32)
    held_up = HeldUp(backend._session)
    backend._session = held_up

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(backend.run, {"image": pixels})
        assert held_up.has_begun.wait(10)
        backend.close()
        held_up.may_go_on.set()

        assert running.result()["logits"].shape == (20, 10)


def test_many_threads_get_their_own_answers() -> None:
    backend = load_member(open_model(bundled_model(Tier.EDGE)), "edge")
    random = np.random.default_rng(1)
    pictures = random.random((40, 1, 28, 28), dtype=np.float32)
    alone = [backend.run({"image": picture})["logits"] for picture in pictures]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda p: backend.run({"image": p})["logits"], pictures))

    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_is_settable(threads: int) -> None:
    options = OnnxOptions(intra_op_threads=threads, inter_op_threads=threads, spin=True)

    outputs = loaded(options=options).run({"x": EXAMPLE})

    np.testing.assert_array_equal(outputs["logits"], EXAMPLE @ WEIGHTS)


def test_a_missing_execution_provider_is_replaced_by_the_cpu_and_named() -> None:
    backend = loaded(options=OnnxOptions(providers=("QuantumProvider", "cuda")))

    np.testing.assert_array_equal(backend.run({"x": EXAMPLE})["logits"], EXAMPLE @ WEIGHTS)
    assert backend.report.wished == ("QuantumProvider", "cuda")
    assert backend.report.taken == (CPU,)
    assert [one.name for one in backend.report.skipped] == [
        "QuantumProvider",
        "CUDAExecutionProvider",
    ]
    assert "it is not in this onnxruntime" in str(backend.report)


def test_auto_takes_what_is_there() -> None:
    assert loaded(options=OnnxOptions(providers=("auto",))).report.taken == (CPU,)


def test_a_provider_that_does_not_start_is_not_replaced_in_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with a missing driver: ONNX Runtime itself leaves it out without an error."""
    there = [PROVIDERS["cuda"], CPU]
    monkeypatch.setattr(ort, "get_available_providers", lambda: there)
    whole = ort.InferenceSession.__init__

    def cpu_alone(self: Any, contents: bytes, settings: Any, providers: list[str]) -> None:
        assert providers == there
        whole(self, contents, settings, providers=[CPU])

    monkeypatch.setattr(ort.InferenceSession, "__init__", cpu_alone)

    backend = loaded(options=OnnxOptions(providers=("cuda",)))

    assert backend.report.taken == (CPU,)
    assert "CUDAExecutionProvider: it did not start; check its driver" in str(backend.report)


def test_a_provider_that_fails_at_the_start_is_given_up_for_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [PROVIDERS["cuda"], CPU])
    whole = ort.InferenceSession.__init__
    tried: list[list[str]] = []

    def no_cuda(self: Any, contents: bytes, settings: Any, providers: list[str]) -> None:
        tried.append(providers)
        if providers != [CPU]:
            raise RuntimeError("CUDA failure 35: driver too old")
        whole(self, contents, settings, providers=providers)

    monkeypatch.setattr(ort.InferenceSession, "__init__", no_cuda)

    backend = loaded(options=OnnxOptions(providers=("cuda",)))

    assert tried == [[PROVIDERS["cuda"], CPU], [CPU]]
    assert backend.report.taken == (CPU,)
    assert "driver too old" in str(backend.report)
    with pytest.raises(ArtifactError, match="is not a model"):
        loaded(b"garbage", options=OnnxOptions(providers=("cuda",)))


def test_a_provider_that_fails_its_warm_up_is_given_up_for_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [PROVIDERS["cuda"], CPU])
    # The first of the two sessions is the one that says it has CUDA.
    whole_init, whole_run = ort.InferenceSession.__init__, ort.InferenceSession.run
    sessions: list[Any] = []

    def init(self: Any, contents: bytes, settings: Any, **_: Any) -> None:
        sessions.append(self)
        whole_init(self, contents, settings, providers=[CPU])

    def run(self: Any, *arguments: Any) -> Any:
        if self is sessions[0]:
            raise RuntimeError("out of memory on the device")
        return whole_run(self, *arguments)

    monkeypatch.setattr(ort.InferenceSession, "__init__", init)
    monkeypatch.setattr(ort.InferenceSession, "run", run)
    monkeypatch.setattr(ort.InferenceSession, "get_providers", lambda _: [PROVIDERS["cuda"], CPU])

    backend = loaded(options=OnnxOptions(providers=("cuda",)))

    np.testing.assert_array_equal(backend.run({"x": EXAMPLE})["logits"], EXAMPLE @ WEIGHTS)
    assert len(sessions) == 2
    assert "out of memory on the device" in str(backend.report)


def test_members_load_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    files = {"b.onnx": linear_model(), "a.onnx": linear_model(-WEIGHTS)}
    write_model(tmp_path, manifest_of(files), files)

    first, second = load_members(open_model(tmp_path))

    np.testing.assert_array_equal(first.run({"x": EXAMPLE})["logits"], EXAMPLE @ WEIGHTS)
    np.testing.assert_array_equal(second.run({"x": EXAMPLE})["logits"], -EXAMPLE @ WEIGHTS)


def test_a_member_that_is_damaged_on_disk_is_not_loaded(tmp_path: Path) -> None:
    files = {"tiny.onnx": linear_model()}
    write_model(tmp_path, manifest_of(files), files)
    model = open_model(tmp_path)
    (tmp_path / "tiny.onnx").write_bytes(files["tiny.onnx"][:-10])

    with pytest.raises(ArtifactError, match="truncated"):
        load_member(model, "tiny")


def test_a_model_for_a_newer_engine_is_refused(tmp_path: Path) -> None:
    files = {"tiny.onnx": linear_model()}
    manifest = manifest_of(files, min_runtime={"onnxruntime": "99.1"})
    write_model(tmp_path, manifest, files)

    with pytest.raises(ArtifactError, match=rf"needs onnxruntime 99\.1.*{ort.__version__}"):
        load_member(ModelFolder(tmp_path, manifest), "tiny")


def test_a_type_that_the_protocol_cannot_carry_is_refused() -> None:
    names = helper.make_tensor_value_info("x", TensorProto.BFLOAT16, ["n"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    graph = helper.make_graph([node], "g", [names], [output])

    with pytest.raises(ArtifactError, match=r"'x' is a tensor\(bfloat16\), which is not served"):
        loaded(serialized(graph))


def test_wrapping_costs_little_over_the_bare_session() -> None:
    """Both in turn, the fastest round of each: what remains is our own work."""
    backend = loaded()
    session, names, inputs = backend._session, ["logits"], {"x": EXAMPLE}
    assert session is not None

    def best_us(call: object, rounds: int = 30, calls: int = 200) -> float:
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            for _ in range(calls):
                call()  # type: ignore[operator]
            times.append((time.perf_counter() - start) / calls)
        return min(times) * 1e6

    bare = best_us(lambda: session.run(names, inputs))
    wrapped = best_us(lambda: backend.run(inputs))

    logging.getLogger(__name__).info("bare %.1f us, wrapped %.1f us", bare, wrapped)
    assert wrapped < bare * 1.5 + 3
