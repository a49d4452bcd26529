"""Callables named by text: `"module:callable"`, resolved when a task runs and called with the parameters they name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from batch_inference.errors import ImportStringError


def is_reference(text: str) -> bool:
    """Whether `text` has the form `"module:callable"`, and is no URL and no SELECT."""
    module, colon, name = text.strip().partition(":")
    dotted = [*module.split("."), *name.split(".")]
    return bool(colon) and all(part.isidentifier() for part in dotted)


def resolve(reference: str) -> Callable[..., Any]:
    """The callable that `"module:callable"` names.

    Raises:
        ImportStringError: the text has another form, the module can't be imported, or it has no such callable.
    """
    if not is_reference(reference):
        raise ImportStringError(
            f"{reference!r} is not of the form 'module:callable', as in 'mypackage.models:make_model'"
        )
    module_name, _, path = reference.strip().partition(":")
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        raise ImportStringError(
            f"{reference!r}: no module {error.name!r}; it must be on the worker's PYTHONPATH or installed there"
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            names = ", ".join(name for name in vars(found) if not name.startswith("_"))
            raise ImportStringError(
                f"{reference!r}: there is no {part!r} in {module_name}; it has {names or 'no public name'}"
            )
        found = getattr(found, part)
    if not callable(found):
        raise ImportStringError(f"{reference!r} is a {type(found).__name__}; it must be callable")
    resolved: Callable[..., Any] = found
    return resolved


def named_parameters(function: Callable[..., Any], parameters: Mapping[str, Any], skip: int = 0) -> dict[str, Any]:
    """Those of `parameters` that `function` names in its signature (all, where it takes `**kwargs`).

    Args:
        function: the callable.
        parameters: what there is, by name.
        skip: leading positional parameters that the caller fills itself.

    Raises:
        ImportStringError: the function needs a parameter that isn't there.
    """
    declared = list(inspect.signature(function).parameters.values())[skip:]
    if any(p.kind is p.VAR_KEYWORD for p in declared):
        return dict(parameters)
    missing = [
        p.name for p in declared if p.default is p.empty and p.kind is not p.VAR_POSITIONAL and p.name not in parameters
    ]
    if missing:
        raise ImportStringError(
            f"{_name(function)} needs {', '.join(missing)}, which parameters doesn't have; it has "
            f"{', '.join(parameters) or 'nothing'}: add what is missing, or give it a default"
        )
    return {p.name: parameters[p.name] for p in declared if p.name in parameters}


def names(function: Callable[..., Any], parameter: str, skip: int = 0) -> bool:
    """Whether `function` names `parameter` in its signature; `**kwargs` names nothing.

    Args:
        function: the callable.
        parameter: the name.
        skip: leading positional parameters that the caller fills itself.
    """
    declared = list(inspect.signature(function).parameters.values())[skip:]
    return any(p.name == parameter and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in declared)


def refuse_unused(parameters: Mapping[str, Any], used: Iterable[str], places: str) -> None:
    """Refuse a parameter that nothing names: a misspelt one must not be dropped silently.

    Raises:
        ImportStringError: such a parameter.
    """
    unused = sorted(set(parameters) - set(used))
    if unused:
        raise ImportStringError(
            f"parameters has {', '.join(unused)}, which neither {places} names; remove it or correct its spelling"
        )


def _name(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', type(function).__name__)}"
