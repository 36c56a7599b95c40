"""`converted`: how much a row of a published table prunes, as the method's own parameters and as a reduction for a cell.

"192 tokens" is another thing for every method. What it is taken for here:

- for methods that prune before the decoder: tokens that enter it;
- for `NAMED` methods: the authors' parameter of that value;
- for FastV, PyramidDrop and VTW, between layers: the mean, over the decoder's layers, of the tokens that enter them;
- for FitPrune: the FLOPs that so many tokens cost in every layer. Its recipe is fitted for that.

Counts are shares of the table's visual tokens, so they scale to models that have more or fewer. The parameter is solved by
the method's own `for_reduction`, so that a cell is asked for, found again and compared like any other.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from baselines.shared.budget import TEXT_TOKENS, TOLERANCE
from baselines.shared.dry_run import plan
from fitprune import BudgetError, FitPruneError, Pruner
from fitprune.flops import layer_macs
from fitprune.models.sizes import DecoderSizes
from fitprune.recipes.published import SCHEME, published_names
from harness.cells import FITPRUNE
from harness.models.registry import find_model
from harness.models.shipped import transformers_config
from harness.pruners.solve import solve
from harness.published.tables import PublishedTable, Setting

NAMED = {"sparsevlm": "retained_tokens", "sparsevlm-plus": "retained_tokens", "dart": "max_num_trunction"}
"""Methods whose authors name a budget by a parameter's value, and the parameter."""
BETWEEN = ("fastv", "pyramiddrop", "vtw")
NEAR = 0.25
"""Tokens that a method may be off; nothing nearer is looked for."""
TRIES = 12
OF_TOKENS = 576
_OF_ALL = ("positions", "newlines")


@dataclass(frozen=True)
class Budget:
    """A row's budget for a model here.

    Attributes:
        reduction: what the cell asks for; None where `recipe` says how much.
        recipe: a recipe that the method's authors published.
        pruner: with the method's own parameters; None for FitPrune, whose recipe is fitted.
        words: what the setting was taken for, and what it came to.
    """

    reduction: float | None
    recipe: str = ""
    pruner: Pruner | None = None
    words: str = ""


def converted(table: PublishedTable, setting: Setting, name: str, model: str, config: Any, tokens: int) -> Budget:
    """The budget of a method's row.

    Args:
        name: the pruner's, in the registry.
        model, config: who is asked here.
        tokens: visual tokens of its prompts.

    Raises:
        FitPruneError: the table says nothing that the method can be asked for; BudgetError, one of them: the method cannot
            reach it.
    """
    if name == FITPRUNE:
        return _of_fitprune(table, setting, model, config, tokens)
    share = _share(table, setting)
    if share is None:
        raise FitPruneError(f"'{setting.name}' says nothing that {name} can be asked for")
    return _solved(name, config, tokens, share, setting)


def _share(table: PublishedTable, setting: Setting) -> float | None:
    """Of the visual tokens, the part that stays."""
    if setting.pruned is not None:
        return 1 - setting.pruned
    return None if setting.tokens is None else setting.tokens / table.visual_tokens


def _of_fitprune(table: PublishedTable, setting: Setting, model: str, config: Any, tokens: int) -> Budget:
    share = _share(table, setting)
    if share is not None:
        reduction = round(1 - _macs(config, share * tokens) / _macs(config, tokens), 4)
        said = f"{setting.name} are taken as the FLOPs of {share * tokens:.4g} of {tokens} tokens in every layer"
        return Budget(reduction, words=f"{said}; fitted for a reduction of {reduction:g}")
    if setting.tflops is not None:
        pruned, dense = setting.tflops
        whole = transformers_config(find_model(table.model))
        saved = (dense - pruned) * 1e12 / 2  # multiply-accumulates, all of them the visual tokens'
        reduction = round(saved / (DecoderSizes.of(whole).layers * _macs(whole, table.visual_tokens)), 4)
        said = f"{setting.name} are {reduction:.1%} of the visual tokens' FLOPs on {table.model}"
        return Budget(reduction, words=f"{said}; fitted for a reduction of {reduction:g}")
    if setting.own is None:
        raise FitPruneError(f"'{setting.name}' says nothing that {FITPRUNE} can be asked for")
    recipe = f"{model}@{setting.own * 100:g}"
    if recipe in published_names():
        return Budget(None, SCHEME + recipe, words=f"its authors' own recipe {SCHEME}{recipe}")
    return Budget(setting.own, words=f"fitted for the reduction of {setting.own:g} that its authors' code was asked for")


def _macs(config: Any, tokens: float) -> float:
    """Of one decoder layer, for so many visual tokens."""
    return layer_macs(tokens, tokens, **DecoderSizes.of(config).costs())


def _solved(name: str, config: Any, tokens: int, share: float, setting: Setting) -> Budget:
    """Step by step to the reduction for which the method's own solver leaves the tokens that are asked for."""
    search = _Search(name, config, tokens, share)
    low, high, reduction = 0.0, 1.0, search.start
    best: tuple[float, float, Pruner] | None = None
    for _ in range(TRIES):
        try:
            pruner = solve(name, reduction, config, visual_tokens=tokens)
        except BudgetError:
            if best is None:
                raise
            off = -float(tokens)
        else:
            off = search.off(pruner)
            best = min(best or (off, reduction, pruner), (off, reduction, pruner), key=lambda found: abs(found[0]))
        if abs(off) <= NEAR:
            break
        low, high = (reduction, high) if off > 0 else (low, reduction)
        step = reduction + off / tokens
        reduction = step if low < step < high else (low + high) / 2
    assert best is not None
    off, reduction, pruner = best
    if abs(off) > max(1.0, TOLERANCE * tokens):
        raise BudgetError(
            f"{name} leaves {search.target + off:.4g} of {tokens} tokens here, and not the {search.target:.4g} asked"
        )
    return Budget(_short(name, reduction, config, tokens, pruner), pruner=pruner, words=_words(name, setting, pruner, search))


class _Search:
    """What a method's solver is searched for: tokens, mean over layers, or its authors' parameter.

    Attributes:
        start: the first reduction to ask for.
        target: tokens.
    """

    def __init__(self, name: str, config: Any, tokens: int, share: float) -> None:
        self.config, self.tokens, self.named = config, tokens, NAMED.get(name)
        self.target = self.mean = share * tokens
        if self.named:
            # DART's is of the prompt's tokens, SparseVLM's of the 576 that its lists are for.
            self.target = share * (tokens if name == "dart" else OF_TOKENS)
            own = solve(name, 0.5, config, visual_tokens=tokens)
            changed: dict[str, Any] = {self.named: round(self.target)}
            self.mean = self._mean(dataclasses.replace(own, **changed))
        self.start = 1 - self.mean / tokens

    def off(self, pruner: Pruner) -> float:
        """By how many tokens a pruner leaves too many."""
        if self.named:
            return getattr(pruner, self.named) - round(self.target)
        return self._mean(pruner) - self.target

    def _mean(self, pruner: Pruner) -> float:
        """Visual tokens that enter a layer, mean over layers, by a run of the method itself."""
        entering = plan(pruner, self.config, TEXT_TOKENS, self.tokens).visual_in
        return sum(int(count) for count in entering) / len(entering)


def _short(name: str, reduction: float, config: Any, tokens: int, pruner: Pruner) -> float:
    """The shortest reduction that gives this very pruner, which a command line and a row's name can hold."""
    for digits in range(2, 6):
        short = round(reduction, digits)
        if 0 < short < 1 and solve(name, short, config, visual_tokens=tokens) == pruner:
            return short
    return round(reduction, 6)


def _words(name: str, setting: Setting, pruner: Pruner, search: _Search) -> str:
    if search.named:
        taken = f"its authors' {search.named}, {search.mean:.4g} tokens in the mean over the decoder's layers"
    elif name in BETWEEN:
        taken = f"{search.mean:.4g} tokens in the mean over the decoder's layers"
    else:
        taken = f"{search.mean:.4g} tokens that enter the decoder"
    fields = (field.name for field in dataclasses.fields(pruner) if field.name not in _OF_ALL)
    own = ", ".join(f"{field}={_text(getattr(pruner, field))}" for field in fields)
    return f"{setting.name} are taken as {taken}: {type(pruner).__name__}({own})"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
