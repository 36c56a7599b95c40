"""`Attachments`: attributes and hooks that stand on live modules for a while, and in no copy of these.

torch.compile runs them as they are: what it traced would be guessed to hold for other prompts, and for other pruners.
"""

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from fitprune.errors import UnsupportedModel

_COPYING = "__reduce_ex__"

# Where a module keeps hooks, by their ids.
_TABLES = frozenset(name for name in vars(nn.Module()) if "_hooks" in name)


class Attachments:
    """What was put on modules. `copy.deepcopy`, `pickle` and `torch.save` of a module see it as it was before."""

    def __init__(self) -> None:
        self._undo = ExitStack()
        self._copying: dict[nn.Module, _Copying] = {}

    def set(self, module: nn.Module, name: str, value: Any) -> None:
        """Set an instance attribute; `remove` makes it what it was, or takes it away where the instance had none."""
        self._of(module).before.setdefault(name, vars(module).get(name, _ABSENT))
        self._set(module, name, torch.compiler.disable(value) if inspect.isfunction(value) else value)

    def hook(self, register: Callable[..., RemovableHandle], hook: Callable[..., Any], **options: Any) -> None:
        """Register a hook; `register` is a module's bound method, such as its `register_forward_hook`."""
        handle = register(torch.compiler.disable(hook), **options)
        self._undo.callback(handle.remove)
        self._of(register.__self__).hooks.add(handle.id)  # type: ignore[attr-defined]

    def __contains__(self, module: nn.Module) -> bool:
        """Whether anything was put on this module."""
        return module in self._copying

    def remove(self) -> None:
        """Take everything off again, also where one of them fails to go."""
        self._undo.close()
        self._copying.clear()

    def _of(self, module: nn.Module) -> "_Copying":
        if module not in self._copying:
            copying = _Copying(module, vars(module).get(_COPYING, _ABSENT))
            self._set(module, _COPYING, copying)
            self._copying[module] = copying
        return self._copying[module]

    def _set(self, module: nn.Module, name: str, value: Any) -> None:
        if name in vars(module):
            self._undo.callback(setattr, module, name, vars(module)[name])
        else:
            self._undo.callback(delattr, module, name)
        setattr(module, name, value)


_ABSENT = object()


class _Copying:
    """Stands in for `__reduce_ex__` of one module, which copying and pickling ask for its state.

    Attributes:
        before: the attributes that were set, as they were; `_ABSENT` where there was none.
        hooks: ids of the hooks that were registered.
    """

    def __init__(self, module: nn.Module, before: Any) -> None:
        self.module = module
        self.before: dict[str, Any] = {_COPYING: before}
        self.hooks: set[int] = set()

    def __call__(self, protocol: int) -> str | tuple[Any, ...]:
        reduced = type(self.module).__reduce_ex__(self.module, protocol)
        if isinstance(reduced, str) or len(reduced) < 3 or not isinstance(reduced[2], dict):
            return reduced
        build, arguments, state, *rest = reduced
        # Several may have been put on one module, one after the other; each knows what it found.
        while isinstance(outermost := state.get(_COPYING), _Copying):
            state = outermost.without(state)
        return build, arguments, state, *rest

    def __reduce__(self) -> str:
        # Reached where a class copies its attributes in a way of its own.
        raise UnsupportedModel(
            f"a {type(self.module).__name__} copies or pickles itself in a way of its own, which would take the pruner's hooks "
            "along; do it outside the pruner's context."
        )

    def without(self, state: dict[str, Any]) -> dict[str, Any]:
        """A module's attributes as they were before what is recorded here."""
        cleaned = {}
        for name, value in {**state, **self.before}.items():
            if name in _TABLES and not self.hooks.isdisjoint(value):
                value = type(value)((key, hook) for key, hook in value.items() if key not in self.hooks)
            if value is not _ABSENT:
                cleaned[name] = value
        return cleaned
