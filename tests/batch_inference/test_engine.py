"""The engine against a plain loop over rows, for every kind of model and of rows."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler, TensorDataset

from batch_inference import BatchInference, batch_inference, find_optimal_batch_size
from batch_inference.errors import ConfigurationError, DeviceLostError, InputError, OutputError, TooLargeError
from batch_inference.memory import available_bytes
from batch_inference.progress import Progress, Reporter

BATCH = 4


@dataclasses.dataclass
class Forecast:
    mean: torch.Tensor
    spread: torch.Tensor
    note: torch.Tensor | None = None


class Pair(NamedTuple):
    low: torch.Tensor
    high: torch.Tensor


class Gru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.GRU(3, 8, num_layers=2, batch_first=True, dropout=0.5)
        self.head = nn.Linear(8, 2)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(windows)[0][:, -1])


class Wrapped(nn.Module):
    """A body whose outputs `shape` puts into another structure."""

    def __init__(self, body: nn.Module, shape: Callable[..., Any]) -> None:
        super().__init__()
        self.body, self.shape = body, shape

    def forward(self, rows: torch.Tensor) -> Any:
        return self.shape(self.body(rows))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.names = nn.Embedding(10, 4)
        self.body = nn.Linear(4 + 3, 2)

    def forward(self, numbers: torch.Tensor, names: torch.Tensor) -> torch.Tensor:
        return self.body(torch.cat([numbers, self.names(names)], dim=1))


def rows_of(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7)).to(dtype)


KINDS: dict[str, tuple[Callable[[], nn.Module], torch.Tensor]] = {
    "linear": (lambda: nn.Linear(3, 2), rows_of(11, 3)),
    "vector output": (lambda: Wrapped(nn.Linear(3, 1), lambda y: y[:, 0]), rows_of(11, 3)),
    "dict output": (lambda: Wrapped(nn.Linear(3, 2), lambda y: {"mu": y[:, 0], "pair": y}), rows_of(11, 3)),
    "ordered dict": (lambda: Wrapped(nn.Linear(3, 2), lambda y: OrderedDict(a=y, b=-y)), rows_of(11, 3)),
    "tuple output": (lambda: Wrapped(nn.Linear(3, 2), lambda y: (y, (y.sum(1),))), rows_of(11, 3)),
    "named tuple": (lambda: Wrapped(nn.Linear(3, 2), lambda y: Pair(y, y + 1)), rows_of(11, 3)),
    "dataclass output": (lambda: Wrapped(nn.Linear(3, 2), lambda y: Forecast(y, y.exp())), rows_of(11, 3)),
    "embedding": (lambda: nn.Embedding(10, 4), torch.arange(11) % 10),
    "convolution": (lambda: nn.Conv2d(3, 2, 3), rows_of(11, 3, 5, 5)),
    "gru": (Gru, rows_of(11, 6, 3)),
    "transformer": (
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1, enable_nested_tensor=False
        ),
        rows_of(11, 6, 8),
    ),
    "float64": (lambda: nn.Linear(3, 2).double(), rows_of(11, 3, dtype=torch.float64)),
    "batch norm and dropout": (
        lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2)),
        rows_of(11, 3),
    ),
    "identity": (lambda: nn.Identity(), rows_of(11, 3)),
    "classes": (lambda: Wrapped(nn.Linear(3, 4), lambda y: y.argmax(1)), rows_of(11, 3)),
}


def one_by_one(model: nn.Module, rows: torch.Tensor) -> list[torch.Tensor]:
    """The leaves of the outputs of a loop over single rows."""
    model.eval()
    with torch.no_grad():
        each = [leaves(model(rows[i : i + 1])) for i in range(len(rows))]
    return [torch.cat(parts) for parts in zip(*each, strict=True)]


def leaves(outputs: Any) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    if outputs is None:
        return []
    if dataclasses.is_dataclass(outputs):
        outputs = [getattr(outputs, field.name) for field in dataclasses.fields(outputs)]
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [leaf for value in values for leaf in leaves(value)]


@pytest.mark.parametrize("kind", KINDS)
def test_batched_equals_one_row_at_a_time(kind: str) -> None:
    torch.manual_seed(0)
    make, rows = KINDS[kind]
    model = make()
    outputs = BatchInference(model, device="cpu", batch_size=BATCH).run(rows).outputs
    found, wanted = leaves(outputs), one_by_one(model, rows)
    assert type(outputs) is type(model(rows[:1]))
    assert [leaf.dtype for leaf in found] == [leaf.dtype for leaf in wanted]
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want)


@given(count=st.integers(0, 3 * BATCH + 1), batch_size=st.integers(1, 2 * BATCH))
@settings(max_examples=60, deadline=None)
def test_any_number_of_rows_keeps_its_order(count: int, batch_size: int) -> None:
    rows = torch.arange(count * 2, dtype=torch.float32).reshape(count, 2)
    result = BatchInference(lambda x: 2 * x + 1, device="cpu", batch_size=batch_size).run(rows)
    assert torch.equal(result.outputs, 2 * rows + 1)
    assert result.statistics.rows == count
    assert result.statistics.batches == -(-count // batch_size)
    size = min(batch_size, count)  # rows that are fewer than a batch are not padded to one
    assert result.statistics.computed_rows == result.statistics.batches * size
    assert count == 0 or result.statistics.batch_size == size


ROWS = np.arange(22, dtype=np.float32).reshape(11, 2)


class Squares(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return len(ROWS)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(ROWS[index])


class Lines(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        return (torch.from_numpy(row) for row in ROWS)


def in_uneven_batches() -> Iterator[np.ndarray[Any, Any]]:
    yield ROWS[:3]
    yield ROWS[3:3]
    yield ROWS[3:10]
    yield ROWS[10:]


def read_only() -> np.ndarray[Any, Any]:
    rows = ROWS.copy()
    rows.flags.writeable = False
    return rows


SOURCES: dict[str, Callable[[], Any]] = {
    "array": lambda: ROWS.copy(),
    "read-only array": read_only,
    "array that isn't contiguous": lambda: np.asfortranarray(ROWS),
    "reversed array": lambda: ROWS[::-1].copy()[::-1],
    "tensor": lambda: torch.from_numpy(ROWS),
    "tuple": lambda: (ROWS,),
    "dict": lambda: {"x": ROWS},
    "tensor dataset": lambda: TensorDataset(torch.from_numpy(ROWS)),
    "dataset": Squares,
    "iterable dataset": Lines,
    "loader of tensors": lambda: DataLoader(TensorDataset(torch.from_numpy(ROWS)), batch_size=3),
    "loader": lambda: DataLoader(Squares(), batch_size=3),
    "loader without the last": lambda: DataLoader(Squares(), batch_size=11, drop_last=True),
    "loader of whole batches": lambda: DataLoader(
        TensorDataset(torch.from_numpy(ROWS)),
        sampler=BatchSampler(SequentialSampler(ROWS), 4, False),  # type: ignore[arg-type]
        batch_size=None,
    ),
    "list of batches": lambda: [ROWS[:4], ROWS[4:]],
    "iterator": in_uneven_batches,
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("batch_size", [None, BATCH])
def test_every_kind_of_rows(source: str, batch_size: int | None) -> None:
    result = BatchInference(lambda x: 3 * x, device="cpu", batch_size=batch_size).run(SOURCES[source]())
    np.testing.assert_array_equal(result.outputs.numpy(), 3 * ROWS)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 on fork in a threaded process
def test_workers_and_pinned_memory(num_workers: int) -> None:
    job = BatchInference(lambda x: 3 * x, device="cpu", batch_size=BATCH, num_workers=num_workers, pin_memory=True)
    np.testing.assert_array_equal(job.run(Squares()).outputs.numpy(), 3 * ROWS)
    own = DataLoader(Squares(), batch_size=3, num_workers=num_workers)
    np.testing.assert_array_equal(job.run(own).outputs.numpy(), 3 * ROWS)


def test_memory_map(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, ROWS)
    result = BatchInference(lambda x: 3 * x, device="cpu", batch_size=BATCH).run(np.load(path, mmap_mode="r"))
    np.testing.assert_array_equal(result.outputs.numpy(), 3 * ROWS)


def test_tuple_is_positional_and_dict_is_by_name() -> None:
    model, numbers, names = TwoInputs(), rows_of(11, 3), torch.arange(11) % 10
    job = BatchInference(model, device="cpu", batch_size=BATCH)
    with torch.no_grad():
        wanted = model(numbers, names)
    torch.testing.assert_close(job.run((numbers, names)).outputs, wanted)
    torch.testing.assert_close(job.run({"names": names.numpy(), "numbers": numbers.numpy()}).outputs, wanted)


def test_exported_program() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    program = torch.export.export(model, (rows_of(BATCH, 3),)).module()
    rows = rows_of(11, 3)
    torch.testing.assert_close(
        BatchInference(program, device="cpu", batch_size=BATCH).run(rows).outputs, model(rows).detach()
    )


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    torch.manual_seed(0)
    job, rows = BatchInference(Gru(), device="cpu", batch_size=8), rows_of(11, 6, 3)
    others = rows.clone()
    others[:9] *= 1000
    assert torch.equal(job.run(rows).outputs[9:], job.run(others).outputs[9:])


def test_the_same_run_is_equal_to_the_bit_and_another_batch_size_within_tolerance() -> None:
    torch.manual_seed(0)
    model, rows = Gru(), rows_of(11, 6, 3)
    job = BatchInference(model, device="cpu", batch_size=8)
    once = job.run(rows).outputs
    assert torch.equal(once, job.run(rows).outputs)
    torch.testing.assert_close(job.run(rows[9:]).outputs, once[9:])  # a batch of two rows, not of eight
    for batch_size in (1, 2, 5, 11, 64):
        torch.testing.assert_close(BatchInference(model, device="cpu", batch_size=batch_size).run(rows).outputs, once)


@pytest.mark.parametrize("source", ["array", "tensor", "dict", "tensor dataset", "dataset"])
def test_few_rows_are_not_padded_to_a_large_batch(source: str) -> None:
    seen = []

    def model(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return x

    statistics = BatchInference(model, device="cpu", batch_size=16_384).run(SOURCES[source]()).statistics
    assert seen == [11]
    assert (statistics.batches, statistics.batch_size, statistics.computed_rows) == (1, 11, 11)


def test_no_rows_give_an_empty_result_of_the_right_shape() -> None:
    outputs = (
        BatchInference(Wrapped(nn.Linear(3, 2), lambda y: {"a": y}), device="cpu").run(np.zeros((0, 3), "f4")).outputs
    )
    assert outputs["a"].shape == (0, 2)


def test_each_part_has_its_mode_back() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    model.train()
    model[0].eval()
    BatchInference(model, device="cpu").run(rows_of(5, 3))
    assert (model.training, model[0].training, model[1].training) == (True, False, True)


def test_outputs_may_take_part_in_training() -> None:
    outputs = BatchInference(nn.Linear(3, 1), device="cpu").run(rows_of(5, 3)).outputs
    head = nn.Linear(1, 1)
    head(outputs).sum().backward()
    assert head.weight.grad is not None


class Hungry(nn.Module):
    """Runs out of memory above `most` rows."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if len(rows) > self.most:
            raise torch.OutOfMemoryError(f"{len(rows)} rows")
        return rows + 1


@pytest.mark.parametrize(("source", "failed"), [("array", (11, 5, 2)), ("loader", (3,)), ("iterator", (3,))])
def test_out_of_memory_halves_the_batch_and_repeats_the_rows(source: str, failed: tuple[int, ...]) -> None:
    result = BatchInference(Hungry(1), device="cpu").run(SOURCES[source]())
    np.testing.assert_array_equal(result.outputs.numpy(), ROWS + 1)
    assert result.statistics.out_of_memory_sizes == failed
    assert result.statistics.batch_size == 1


def test_out_of_memory_in_the_middle_keeps_what_is_done() -> None:
    calls = []

    def model(rows: torch.Tensor) -> torch.Tensor:
        calls.append(len(rows))
        if len(calls) == 3:
            raise torch.OutOfMemoryError
        return rows + 1

    result = BatchInference(model, device="cpu", batch_size=2).run(ROWS)
    np.testing.assert_array_equal(result.outputs.numpy(), ROWS + 1)
    assert calls == [2, 2, 2, *[1] * 7]
    assert result.statistics.out_of_memory_sizes == (2,)
    assert result.statistics.computed_rows == 11


def test_one_row_too_large_is_said() -> None:
    with pytest.raises(TooLargeError, match="a batch of one row doesn't fit into the memory of cpu"):
        BatchInference(Hungry(0), device="cpu").run(ROWS)


def test_only_out_of_memory_is_taken_for_it() -> None:
    def model(rows: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA out of memory, it says")

    with pytest.raises(RuntimeError, match="it says"):
        BatchInference(model, device="cpu").run(ROWS)


def test_memory_limit_bounds_a_batch_by_its_inputs() -> None:
    result = BatchInference(lambda x: x, device="cpu", batch_size=11, memory_limit=3 * 2 * 4).run(ROWS)
    np.testing.assert_array_equal(result.outputs.numpy(), ROWS)
    assert result.statistics.batch_size <= 3


def test_memory_limit_shrinks_after_a_batch_that_grew_the_process() -> None:
    kept = []

    def model(rows: torch.Tensor) -> torch.Tensor:
        kept.append(torch.ones(len(rows) * 2**20))  # 4 MiB a row
        return rows

    result = BatchInference(model, device="cpu", batch_size=8, memory_limit=16 * 2**20).run(ROWS)
    np.testing.assert_array_equal(result.outputs.numpy(), ROWS)
    assert result.statistics.batch_size <= 4
    assert result.statistics.peak_memory_bytes >= 32 * 2**20


def test_statistics_are_the_stated_formulas() -> None:
    stats = BatchInference(lambda x: x, device="cpu", batch_size=4).run(ROWS).statistics
    assert (stats.rows, stats.batches, stats.batch_size) == (11, 3, 4)
    assert stats.throughput == pytest.approx(4 * 3 / stats.total_time_s)
    assert stats.rows_per_second == pytest.approx(11 / stats.total_time_s)
    assert stats.latency_ms_per_sample == pytest.approx(stats.latency_ms_per_batch / 4)
    assert stats.device.startswith("cpu (")
    assert (stats.precision, stats.precision_reason) == ("float32", "float32 was asked for")
    assert "11 rows in 3 batches of 4" in str(stats)


def test_progress_ends_with_every_row() -> None:
    told: list[Progress] = []
    BatchInference(lambda x: x, device="cpu", batch_size=4, progress=told.append).run(ROWS)
    assert (told[-1].rows_done, told[-1].rows_total, told[-1].seconds_left) == (11, 11, 0)


def test_progress_is_told_every_interval() -> None:
    times = iter([0.0, 1.0, 2.0, 3.0, 4.0])
    told: list[Progress] = []
    reporter = Reporter(told.append, 100, interval_s=2.0, clock=lambda: next(times))
    for done in (10, 20, 30, 40):
        reporter.rows_done(done)
    assert [str(progress) for progress in told] == [
        "20 of 100 rows, 10 rows/s, 8 s left",
        "40 of 100 rows, 10 rows/s, 6 s left",
    ]
    assert str(Progress(0, None, 0.0)) == "0 rows, 0 rows/s"


BAD_ROWS: dict[str, tuple[Any, str]] = {
    "number": (3, "rows is a int; allowed are an array"),
    "text": ("rows", "rows is a str"),
    "objects": (np.array([object()]), "type object, which torch doesn't have"),
    "another byte order": (np.zeros((2, 2), ">f4"), "convert it"),
    "single number": (torch.tensor(1.0), "its first axis must be the rows"),
    "unequal": ((ROWS, ROWS[:3]), r"different numbers of rows \(\[0\]: 11, \[1\]: 3\)"),
    "texts as batches": (["a", "b"], "input of a batch is a str"),
    "empty tuple": ((), "no array and no tensor"),
    "no batch": (iter(()), "there is no batch to score"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_bad_rows_are_refused_in_a_sentence(kind: str) -> None:
    rows, sentence = BAD_ROWS[kind]
    with pytest.raises(InputError, match=sentence):
        BatchInference(lambda x: x, device="cpu").run(rows)


def test_frame_is_sent_back_for_its_numbers() -> None:
    import pandas as pd

    with pytest.raises(InputError, match="to_numpy"):
        BatchInference(lambda x: x, device="cpu").run(pd.DataFrame({"x": [1.0]}))


class Changing:
    """Gives an answer of another shape the second time."""

    def __init__(self, *answers: Callable[[torch.Tensor], Any]) -> None:
        self.answers = iter(answers)

    def __call__(self, rows: torch.Tensor) -> Any:
        return next(self.answers)(rows)


BAD_OUTPUTS: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "too few rows": (lambda x: x[1:], r"a batch of 4 rows and its output tensor has shape \(3, 2\)"),
    "one number": (lambda x: x.sum(), r"shape \(\)"),
    "text": (lambda x: {"a": "b"}, r"output \['a'\] is a str"),
    "nothing": (lambda x: None, "the model gave nothing"),
    "another width": (Changing(lambda x: x, lambda x: x[:, :1]), r"rows of \(1,\) torch.float32 in one batch"),
    "another type": (Changing(lambda x: x, lambda x: x.double()), "torch.float64"),
    "other names": (Changing(lambda x: {"a": x}, lambda x: {"b": x}), r"outputs \['b'\] for one batch"),
}


@pytest.mark.parametrize("kind", BAD_OUTPUTS)
def test_bad_outputs_are_refused_in_a_sentence(kind: str) -> None:
    model, sentence = BAD_OUTPUTS[kind]
    with pytest.raises(OutputError, match=sentence):
        BatchInference(model, device="cpu", batch_size=4).run(ROWS)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be a whole number of 1 or more"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"memory_limit": 0}, "memory_limit is 0"),
        ({"precision": "int8"}, "precision 'int8' is not known; allowed are float32"),
        ({"precision_tolerance": float("nan")}, "precision_tolerance is nan"),
        ({"device": "tpu"}, "device 'tpu' is not known"),
        ({"device": "cuda:99"}, "is not on this machine"),
        ({"model": 3}, "model is a int"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        BatchInference(**{"model": nn.Linear(1, 1), **options})


def test_batch_inference_of_a_loader_takes_the_first_of_each_batch() -> None:
    model, rows = nn.Linear(3, 2), rows_of(11, 3)
    with torch.no_grad():
        wanted = model(rows)
    pairs = TensorDataset(rows, torch.zeros(11))
    torch.testing.assert_close(batch_inference(model, DataLoader(pairs, batch_size=4)), wanted)
    torch.testing.assert_close(batch_inference(model, DataLoader(pairs, batch_size=4, collate_fn=by_hand)), wanted)
    torch.testing.assert_close(batch_inference(model, [rows[:5], rows[5:]]), wanted)


def by_hand(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])


def test_find_optimal_batch_size_has_the_documented_shape(capsys: pytest.CaptureFixture[str]) -> None:
    results = find_optimal_batch_size(nn.Linear(3, 2), (3,), device="cpu", max_batch_size=4)
    assert list(results) == [1, 2, 4]
    best = max(results, key=lambda size: results[size]["throughput"])
    assert capsys.readouterr().out == f"Optimal batch size: {best} ({results[best]['throughput']:.0f} samples/sec)\n"
    for size, row in results.items():
        assert row["samples_per_sec"] == row["throughput"] == pytest.approx(size / row["latency_ms"] * 1e3)
        assert set(row) == {"throughput", "latency_ms", "samples_per_sec"}


def test_output_of_unknown_length_grows() -> None:
    batches = (torch.full((700, 2), float(i)) for i in range(20))
    outputs = BatchInference(lambda x: x + 1, device="cpu").run(batches).outputs
    assert torch.equal(outputs[:, 0], torch.arange(1, 21).repeat_interleave(700).float())


@pytest.mark.parametrize(("code", "error"), [(2, TooLargeError), (700, DeviceLostError)])
def test_a_dead_device_is_told_from_a_full_one_by_its_code(code: int, error: type[Exception]) -> None:
    def model(rows: torch.Tensor) -> torch.Tensor:
        failure = torch.AcceleratorError("CUDA error")
        failure.error_code = code
        raise failure

    with pytest.raises(error):
        BatchInference(model, device="cpu", batch_size=4).run(ROWS)


class Filled(OrderedDict[str, torch.Tensor]):
    """A mapping of its own kind."""


def test_outputs_keep_a_mapping_of_its_own_kind() -> None:
    outputs = BatchInference(lambda x: Filled(a=x, b=x + 1), device="cpu", batch_size=4).run(ROWS).outputs
    assert type(outputs) is Filled
    np.testing.assert_array_equal(outputs["b"].numpy(), ROWS + 1)


def test_free_memory_of_this_machine_is_less_than_all_of_it() -> None:
    import os

    everything = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < available_bytes(torch.device("cpu")) < everything
