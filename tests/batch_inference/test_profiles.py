"""The choice of a batch size on curves of known form, the search that measures them, and the key of a profile."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from batch_inference import choose_batch_size, describe_device, format_profile, profile_batch_size, profile_key
from batch_inference.devices import library_versions
from batch_inference.errors import ConfigurationError, DeviceError, InputError, TooLargeError
from batch_inference.profiler import Sweep, random_rows, sweep
from batch_inference.profiles import ProfileRow, measured_row

PLUGINS = Path(__file__).parents[2] / "plugins"


def row(size: int, seconds: float, memory: int = 0) -> ProfileRow:
    return measured_row(size, [seconds], memory)


@given(fixed=st.floats(1e-6, 1e-1), each=st.floats(1e-9, 1e-3))
def test_choice_on_a_straight_line(fixed: float, each: float) -> None:
    """t(b) = f + a b has throughput b / (f + a b), which grows with b: within 2% of the largest size B from
    b >= 0.98 f B / (f + 0.02 a B)."""
    largest = 2**15
    knee = 0.98 * fixed * largest / (fixed + 0.02 * each * largest)
    wanted = 2 ** max(0, math.ceil(math.log2(knee)))
    rows = [row(2**i, fixed + each * 2**i) for i in range(16)]
    near_edge = abs(knee - 2 ** round(math.log2(max(knee, 1e-9)))) < 1e-6 * knee
    assert near_edge or choose_batch_size(rows).batch_size == wanted


def test_choice_where_the_largest_is_not_the_fastest() -> None:
    rows = [row(1, 1.0), row(2, 1.0), row(4, 1.0), row(8, 4.0), row(16, 20.0)]
    assert choose_batch_size(rows).batch_size == 4


def test_choice_where_one_row_is_best() -> None:
    assert choose_batch_size([row(1, 1.0), row(2, 2.0), row(4, 4.0)]).batch_size == 1


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no batch size was measured"):
        choose_batch_size([])


def test_measured_row_is_the_stated_formulas() -> None:
    measured = measured_row(8, [0.001, 0.002, 0.003, 0.010], 7)
    assert measured.throughput == pytest.approx(8 / 0.0025)
    assert measured.latency_ms_per_batch == pytest.approx(2.5)
    assert measured.latency_ms_per_sample == pytest.approx(2.5 / 8)
    assert measured.spread == pytest.approx(1.0 / 2.5)  # deviations 1.5, 0.5, 0.5, 7.5 ms
    assert (measured.runs, measured.memory_bytes) == (4, 7)


class Device:
    """A device with known times and memory; its clock is what its runs took."""

    def __init__(self, fixed: float = 0.001, each: float = 0.0001, bytes_a_row: int = 1000, room: int = 10**9) -> None:
        self.fixed, self.each, self.bytes_a_row, self.room = fixed, each, bytes_a_row, room
        self.now = 0.0
        self.tried: list[int] = []

    def clock(self) -> float:
        return self.now

    def measure(self, size: int) -> ProfileRow | None:
        self.tried.append(size)
        if size * self.bytes_a_row > self.room:
            return None
        seconds = self.fixed + self.each * size
        self.now += 55 * seconds
        return measured_row(size, [seconds] * 50, 5000 + size * self.bytes_a_row)

    def sweep(self, most: int = 4096, memory: int = 10**9, seconds: float = 1e9) -> Sweep:
        return sweep(self.measure, max_batch_size=most, memory_limit=memory, time_budget_s=seconds, clock=self.clock)


def sizes(found: Sweep) -> list[int]:
    return [measured.batch_size for measured in found.rows]


def test_sweep_ends_at_the_largest_size() -> None:
    found = Device().sweep(most=100)
    assert sizes(found) == [1, 2, 4, 8, 16, 32, 64]
    assert found.ended == "100 was the largest size allowed"


def test_sweep_ends_before_the_memory_limit() -> None:
    device = Device(bytes_a_row=2**20)
    found = device.sweep(memory=40 * 2**20)
    assert device.tried == sizes(found) == [1, 2, 4, 8, 16, 32]
    assert found.ended == "64 would need 64 MiB of the 40 MiB allowed"


def test_sweep_ends_at_an_out_of_memory() -> None:
    found = Device(room=10_000).sweep()
    assert sizes(found) == [1, 2, 4, 8]
    assert found.ended == "16 didn't fit into memory"


def test_sweep_ends_within_its_time() -> None:
    device = Device(fixed=0.0, each=0.01)
    found = device.sweep(seconds=10.0)
    assert device.now <= 10.0
    assert sizes(found) == [1, 2, 4, 8]  # 0.55 s a row: 8.25 s so far, and the last took 4.4 s
    assert found.ended == "the time budget of 10 s ended the search before 16"


def test_flat_memory_does_not_stop_the_search() -> None:
    assert sizes(Device(bytes_a_row=0).sweep(most=8, memory=6000)) == [1, 2, 4, 8]


def test_profile_of_a_model_on_this_machine() -> None:
    profile = profile_batch_size(nn.Linear(8, 3), (4, 8), device="cpu", max_batch_size=8, time_budget_s=5)
    assert [measured.batch_size for measured in profile.rows] == [1, 2, 4, 8]
    assert all(3 <= measured.runs <= 50 and measured.throughput > 0 for measured in profile.rows)
    assert profile.batch_size == choose_batch_size(profile.rows).batch_size
    assert (profile.model, profile.input_shape, profile.precision) == ("Linear", "4x8 float32", "float32")
    assert profile.device == str(describe_device("cpu"))
    assert "8 was the largest size allowed" in profile.reason
    assert json.loads(json.dumps(profile.curve()))[0]["batch_size"] == 1


def test_profile_of_example_rows() -> None:
    example = {"input": torch.zeros(2, dtype=torch.long)}
    profile = profile_batch_size(nn.Embedding(4, 2), example, device="cpu", max_batch_size=2)
    assert profile.input_shape == "scalar int64"


class Hungry(nn.Module):
    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.most, self.error = most, error

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if len(rows) > self.most:
            raise self.error
        return rows


def test_out_of_memory_ends_a_profile() -> None:
    profile = profile_batch_size(Hungry(4, torch.OutOfMemoryError()), (3,), device="cpu")
    assert [measured.batch_size for measured in profile.rows] == [1, 2, 4]
    assert "8 didn't fit into memory" in profile.reason
    with pytest.raises(TooLargeError, match="a batch of one row"):
        profile_batch_size(Hungry(0, torch.OutOfMemoryError()), (3,), device="cpu")


def test_another_error_is_not_an_end() -> None:
    with pytest.raises(RuntimeError, match="out of memory, it says"):
        profile_batch_size(Hungry(4, RuntimeError("out of memory, it says")), (3,), device="cpu")


def test_slow_sizes_are_run_three_times() -> None:
    profile = profile_batch_size(nn.Linear(2, 2), (2,), device="cpu", max_batch_size=1, time_budget_s=1e-9)
    assert profile.chosen.runs == 3


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"max_batch_size": 0}, ConfigurationError, "max_batch_size 0"),
        ({"timed_runs": 2}, ConfigurationError, "timed_runs 2"),
        ({"precision": "auto"}, ConfigurationError, "a profile is of one precision"),
        ({"device": "tpu"}, DeviceError, "allowed are 'auto'"),
        ({"input_shape_or_example": torch.zeros(0, 2)}, InputError, "the example has no row"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(
    options: dict[str, object], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        profile_batch_size(nn.Linear(2, 2), **{"input_shape_or_example": (2,), "device": "cpu", **options})  # type: ignore[arg-type]


def test_unknown_input_type_is_refused() -> None:
    assert random_rows((2,), "int64").dtype == torch.int64
    with pytest.raises(ConfigurationError, match="input type 'floaty' is not known"):
        random_rows((2,), "floaty")


def test_table_marks_the_choice() -> None:
    table = format_profile([row(1, 0.001, 2**20), row(2, 0.001, 2**21)], 2).splitlines()
    assert len(table) == 3
    assert table[1].split()[:5] == ["1", "1,000", "1", "1", "1.0"]
    assert table[2].endswith("<- chosen")
    assert "chosen" not in table[1]


def key(**changed: object) -> str:
    options = {"model_key": "m", "input_shape": (64, 8), "device": "cpu", **changed}
    return profile_key(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changed", [{"model_key": "n"}, {"input_shape": (64, 9)}, {"dtype": "float64"}, {"precision": "bfloat16"}]
)
def test_key_depends_on_what_makes_a_profile(changed: dict[str, object]) -> None:
    assert key() == key()
    assert key(**changed) != key()


def test_key_of_a_model_is_its_code_and_shapes_and_not_its_weights() -> None:
    def of(model: object) -> str:
        return profile_key(model=model, input_shape=(3,), device="cpu")

    assert of(nn.Linear(3, 2)) == of(nn.Linear(3, 2))
    assert of(nn.Linear(3, 2)) != of(nn.Linear(3, 4))
    assert of(nn.Linear(3, 2)) != of(nn.Linear(3, 2).double())
    assert of(Hungry(1, ValueError())) != of(nn.Identity())
    assert of(row) != of(sizes)
    assert of(len) == of(len)
    with pytest.raises(ConfigurationError, match="needs model or model_key"):
        profile_key(input_shape=(3,))


def test_key_is_the_same_without_torch() -> None:
    code = (
        "import sys; from batch_inference import profile_key;"
        "print(profile_key(model_key='m', input_shape=(64, 8)), 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(PLUGINS)}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert told.stdout.split() == [profile_key(model_key="m", input_shape=(64, 8)), "False"]


def test_versions_are_torchs_own() -> None:
    assert library_versions()["torch"] == torch.__version__
    assert library_versions()["cuda"] == torch.version.cuda
    assert (library_versions()["cudnn"] is None) == (torch.version.cuda is None)


def test_auto_is_the_device_that_torch_would_take() -> None:
    assert describe_device("auto").kind == ("cuda" if torch.cuda.is_available() else "cpu")
    assert describe_device("cpu").name
    with pytest.raises(DeviceError, match=r"torch sees \d+ CUDA devices"):
        describe_device("cuda:99")


def test_core_count_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from batch_inference.devices import thread_count, usable_cores

    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert thread_count() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert thread_count() == usable_cores() >= 1
