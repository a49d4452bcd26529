"""The same results on a CUDA device: copies overlapped on streams, batches halved, precision proven."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from batch_inference import BatchInference, describe_device, profile_batch_size
from batch_inference.memory import available_bytes

pytestmark = pytest.mark.gpu

ROWS = 10_007


class Net(nn.Module):
    """Slow enough for copies of several batches to be in flight at once."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 64, num_layers=2, batch_first=True)
        self.head = nn.Linear(64, 3)

    def forward(self, windows: torch.Tensor) -> dict[str, torch.Tensor]:
        last = self.gru(windows)[0][:, -1]
        return {"mu": self.head(last), "first": windows[:, 0, 0]}


def windows() -> np.ndarray[Any, Any]:
    rows = np.random.default_rng(0).normal(size=(ROWS, 64, 8)).astype("f4")
    rows[:, 0, 0] = np.arange(ROWS)  # so that every row tells its place
    return rows


@pytest.fixture(scope="module")
def expected() -> torch.Tensor:
    torch.manual_seed(0)
    return BatchInference(Net(), device="cpu", batch_size=1024).run(windows()).outputs["mu"]


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def check(outputs: dict[str, torch.Tensor], expected: torch.Tensor) -> None:
    assert torch.equal(outputs["first"], torch.arange(ROWS, dtype=torch.float32))
    assert outputs["mu"].device.type == "cpu"
    torch.testing.assert_close(outputs["mu"], expected, atol=1e-5, rtol=1e-4)


def in_batches() -> Iterator[np.ndarray[Any, Any]]:
    rows = windows()
    for start in range(0, ROWS, 300):
        yield rows[start : start + 300].copy()


@pytest.mark.parametrize("batch_size", [64, 1000, 20_000])
@pytest.mark.parametrize("pin_memory", [True, False])
def test_arrays_equal_the_cpu(expected: torch.Tensor, batch_size: int, pin_memory: bool) -> None:
    job = BatchInference(net(), device="cuda", batch_size=batch_size, pin_memory=pin_memory)
    check(job.run(windows()).outputs, expected)


@pytest.mark.parametrize("kind", ["pinned", "on the device", "loader", "iterator"])
def test_every_kind_of_rows_equals_the_cpu(expected: torch.Tensor, kind: str) -> None:
    tensor = torch.from_numpy(windows())
    rows = {
        "pinned": lambda: tensor.pin_memory(),
        "on the device": lambda: tensor.cuda(),
        "loader": lambda: DataLoader(TensorDataset(tensor), batch_size=300, pin_memory=True, collate_fn=stacked),
        "iterator": in_batches,
    }[kind]()
    check(BatchInference(net(), device="cuda", batch_size=256).run(rows).outputs, expected)


def stacked(rows: list[tuple[torch.Tensor]]) -> tuple[torch.Tensor]:
    return (torch.stack([row for (row,) in rows]),)


def test_many_small_batches_never_mix() -> None:
    rows = torch.arange(200_000, dtype=torch.float32)[:, None].repeat(1, 256)
    outputs = BatchInference(lambda x: x * 2, device="cuda", batch_size=1024).run(rows).outputs
    assert torch.equal(outputs, rows * 2)


def test_the_same_run_twice_gives_the_same_bits() -> None:
    job = BatchInference(net(), device="cuda", batch_size=1000)
    assert torch.equal(job.run(windows()).outputs["mu"], job.run(windows()).outputs["mu"])


def test_memory_limit_halves_the_batch(expected: torch.Tensor) -> None:
    model = net().cuda()
    torch.cuda.empty_cache()
    limit = torch.cuda.memory_reserved() + 512 * 2**20  # a batch of 8,192 takes 2.2 GiB
    result = BatchInference(model, device="cuda", batch_size=8192, memory_limit=limit).run(windows())
    check(result.outputs, expected)
    assert result.statistics.out_of_memory_sizes[0] == 8192
    assert result.statistics.peak_memory_bytes <= limit
    assert torch.cuda.get_per_process_memory_fraction() == 1.0


def test_precision_is_gated_and_settings_are_restored(expected: torch.Tensor) -> None:
    before = torch.backends.cudnn.rnn.fp32_precision
    loose = BatchInference(net(), device="cuda", batch_size=1000, precision="auto", precision_tolerance=0.5).run(
        windows()
    )
    assert loose.statistics.precision == "bfloat16"
    assert loose.outputs["mu"].dtype == torch.float32
    exact = BatchInference(net(), device="cuda", batch_size=1000, precision="auto", precision_tolerance=0.0).run(
        windows()
    )
    assert exact.statistics.precision == "float32"
    assert [trial.precision for trial in exact.statistics.precision_trials] == ["bfloat16", "float16", "tf32"]
    check(exact.outputs, expected)
    assert torch.backends.cudnn.rnn.fp32_precision == before


def test_profile_and_description() -> None:
    profile = profile_batch_size(net(), (64, 8), device="auto", max_batch_size=512, time_budget_s=10)
    assert [row.batch_size for row in profile.rows] == [2**i for i in range(10)]
    assert all(row.memory_bytes > 0 for row in profile.rows)
    assert describe_device("auto").name == torch.cuda.get_device_name(0)
    assert profile.device == str(describe_device("cuda"))
    assert profile.versions["cuda"] == torch.version.cuda


def test_profile_ends_at_its_memory_limit() -> None:
    limit = torch.cuda.memory_allocated() + 64 * 2**20
    profile = profile_batch_size(net(), (64, 8), device="cuda", memory_limit=limit, time_budget_s=10)
    assert max(row.memory_bytes for row in profile.rows) <= limit
    assert "would need" in profile.reason or "didn't fit" in profile.reason
    assert available_bytes(torch.device("cuda")) > 0


def test_runs_leave_no_memory_behind() -> None:
    model = net().cuda()
    held = []
    for _ in range(6):
        BatchInference(model, device="cuda", batch_size=500).run(windows()[:2000])
        held.append(torch.cuda.memory_allocated())
    assert held[1:] == held[:1] * 5


def test_memory_is_flat_after_the_first_batches() -> None:
    peaks: list[int] = []
    model = net().cuda()

    def watched(rows: torch.Tensor) -> torch.Tensor:
        peaks.append(torch.cuda.memory_reserved())
        return model(rows)["mu"]

    with torch.inference_mode():
        BatchInference(watched, device="cuda", batch_size=500).run(windows())
    assert peaks[-1] == peaks[5]
