"""`Registry`: things by name: a package's own, and those that other packages add by entry points."""

import functools
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from fitprune.errors import FitPruneError

Thing = TypeVar("Thing")


class Registry(Mapping[str, Thing]):
    """Names and things, the package's own first. What is elsewhere is imported when it is looked up, and not when it is listed.

    Args:
        own: name → the thing, or where it is, as "module:name".
        group: of other packages' entry points, name = "module:name", of a thing whose `name` is the same.
        kind: what the things are, for people.
        fault: what is wrong with what another package has registered, behind "which"; empty where nothing is.
    """

    def __init__(self, own: Mapping[str, Any], group: str, kind: str, fault: Callable[[Any], str]) -> None:
        self.own, self.group, self.kind, self.fault = own, group, kind, fault

    @functools.cached_property
    def others(self) -> dict[str, EntryPoint]:
        """The entry points of other packages, by name. Raises FitPruneError where two things have one name."""
        found: dict[str, EntryPoint] = {}
        for entry in entry_points(group=self.group):
            other = self.own.get(entry.name) or found.setdefault(entry.name, entry).value
            other = other if isinstance(other, str) else "this package's"
            if other != entry.value:
                raise FitPruneError(
                    f"two {self.kind}s are called '{entry.name}': {other} and {entry.value}; "
                    "rename one, or uninstall its package."
                )
        return found

    def __getitem__(self, name: str) -> Thing:
        if name in self.own:
            own = self.own[name]
            return EntryPoint(name, own, self.group).load() if isinstance(own, str) else own
        entry = self.others[name]
        try:
            loaded = entry.load()
        except (ImportError, AttributeError) as error:
            raise FitPruneError(f"{self.kind} '{name}' cannot be loaded from {entry.value}: {error}") from None
        called = getattr(loaded, "name", None)
        if fault := self.fault(loaded) or ("" if called == name else f"calls itself {called!r}"):
            raise FitPruneError(f"{self.kind} '{name}' is registered as {entry.value}, which {fault}.")
        return loaded

    def __contains__(self, name: object) -> bool:
        return name in self.others or name in self.own  # in this order, so that two of one name are refused

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from (name for name in self.others if name not in self.own)

    def __len__(self) -> int:
        return len(list(iter(self)))
