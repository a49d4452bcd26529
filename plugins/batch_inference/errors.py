"""Every error that the package raises on purpose: each says what was wrong, what is allowed and what to do.

BatchInferenceError
├── ConfigurationError     an argument that can't be right: no retry helps
│   ├── DeviceError        a device that isn't there
│   └── ImportStringError  a "module:callable" that can't be resolved or called
├── InputError             rows that can't be cut into batches
├── OutputError            a model's answer that doesn't fit its rows
├── TableError             a table or a SELECT that doesn't fit what is stored or read
├── TooLargeError          one row alone doesn't fit into the device's memory
└── DeviceLostError        the device's context is dead: a new process is needed, so a retry helps
"""

from __future__ import annotations

from collections.abc import Sequence


class BatchInferenceError(Exception):
    """Base of the package's own errors."""


class ConfigurationError(BatchInferenceError, ValueError):
    """An argument that can't be right."""


class DeviceError(ConfigurationError):
    """A device that isn't there, or that this package doesn't drive."""


class ImportStringError(ConfigurationError):
    """A `"module:callable"` that can't be resolved, or can't be called with what there is."""


class InputError(BatchInferenceError, ValueError):
    """Rows that can't be cut into batches."""


class OutputError(BatchInferenceError, ValueError):
    """A model's answer that doesn't fit its rows."""


class RowCountError(OutputError):
    """A model that gave another number of rows than it got."""

    def __init__(self, name: str, given: int, shape: Sequence[int]) -> None:
        super().__init__(
            f"the model got a batch of {given} rows and its output {name} has shape {tuple(shape)}; the first axis of "
            f"every output must be the rows, {given} here: return one result a row"
        )


class TableError(BatchInferenceError, ValueError):
    """A table or a SELECT that doesn't fit what is stored or read."""


class TooLargeError(BatchInferenceError, MemoryError):
    """One row alone doesn't fit into the device's memory."""

    def __init__(self, device: str) -> None:
        super().__init__(
            f"a batch of one row doesn't fit into the memory of {device}; free the device, raise memory_limit, or use "
            "a smaller model or a reduced precision"
        )


class DeviceLostError(BatchInferenceError, RuntimeError):
    """The device's context is dead: nothing runs on it again in this process."""

    def __init__(self, batch_size: int, cause: BaseException) -> None:
        super().__init__(
            f"the device stopped answering at a batch of {batch_size} rows ({type(cause).__name__}: "
            f"{str(cause).splitlines()[0] if str(cause) else 'no message'}); no later call of this process can use it: "
            f"start a new process with a batch size below {batch_size}"
        )
