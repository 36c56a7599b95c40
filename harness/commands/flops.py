"""What a prompt costs, by part, dense and pruned: from the configuration that ships with the package, without weights."""

import argparse
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from fitprune.arguments import TYPICAL_SIZE, image_size, names, share, whole
from fitprune.errors import BudgetError, FitPruneError, UnsupportedModel
from harness.cells import DENSE
from harness.models.family_names import announced
from harness.models.registry import find_model
from harness.models.shipped import family_of, read_config, transformers_config
from harness.models.spec import View

if TYPE_CHECKING:
    from baselines.shared.dry_run import Plan
    from fitprune import Pruner, Recipe
    from harness.cost.flops import FlopCount

TEXT_TOKENS, NEW_TOKENS = 64, 16
ALL = "all"  # the default, spelt out


@dataclass(frozen=True)
class Prompt:
    """The prompt that is counted: one image, its text after it."""

    config: Any
    view: View
    text_tokens: int
    new_tokens: int

    @property
    def beside(self) -> int:
        """Tokens that no pruner drops: text, and newlines of tiled images."""
        return self.text_tokens + self.view.newlines

    def inputs(self) -> dict[str, Any]:
        """What the processor would give. The pixels are on the meta device: only their shape counts."""
        import torch

        ids = torch.ones(1, self.beside + self.view.tokens, dtype=torch.long)
        ids[:, : self.view.tokens + self.view.newlines] = self.config.image_token_id
        extra = {name: torch.tensor(value) for name, value in self.view.extra.items()}
        pixels = torch.empty(self.view.pixels, device="meta")
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels, **extra}

    def plan(self, pruner: "Pruner") -> "Plan":
        """What a pruner does to it."""
        from baselines.shared.dry_run import plan

        return plan(pruner, self.config, self.beside, self.view.tokens, math.prod(self.view.pixels[:-3]))

    def cost(self, trace: "Plan | None" = None, new_tokens: int | None = None) -> "FlopCount":
        """FLOPs, dense or under a pruner with this plan."""
        from harness.cost.flops import count_prompts

        return count_prompts(self.config, self.inputs(), trace, self.new_tokens if new_tokens is None else new_tokens)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    count = whole()
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="a registry name, a family's, or a folder with a config.json")
    add("--reduction", type=share, metavar="R", help="share of the visual tokens' decoder FLOPs to save, 0-1")
    add(
        "--pruner",
        type=names,
        metavar="NAME[,NAME]",
        help="methods (default: all that need no calibration, and fitprune with a recipe)",
    )
    add(
        "--recipe",
        metavar="FILE",
        help="a FitPrune recipe, or published:NAME@P (default: the published one nearest to R, where there is one)",
    )
    add("--image", type=image_size, default=TYPICAL_SIZE, metavar="WxH", help=f"size of the image (default {TYPICAL_SIZE})")
    add("--tokens", type=count, metavar="N", help="visual tokens, in place of the image's own number")
    add("--text", type=count, default=TEXT_TOKENS, metavar="N", help=f"text tokens (default {TEXT_TOKENS})")
    add("--new", type=count, default=NEW_TOKENS, metavar="N", help=f"generated tokens (default {NEW_TOKENS})")


def run(options: argparse.Namespace) -> None:
    """Print the table, and below it what it does not show."""
    from baselines.registry import check_name
    from fitprune import Recipe

    recipe = Recipe.load(options.recipe) if options.recipe else None
    for name in options.pruner or ():
        if name != ALL:
            check_name(name)
    if options.pruner and options.reduction is None and options.recipe is None:
        raise FitPruneError(f"--pruner {','.join(options.pruner)} needs --reduction R, or --recipe FILE for fitprune")
    if ALL in (options.pruner or ()):
        options.pruner = None
    chosen = announced(options.model, weights=False)
    options.model = chosen.name
    counts: dict[str, FlopCount] = {}
    single: dict[str, FlopCount] = {}
    notes: list[str] = []
    with tqdm(desc="flops", unit=" rows", disable=not sys.stderr.isatty(), leave=False) as bar:
        prompt = _prompt(options)
        rows = {DENSE: None} | _pruners(options, recipe, prompt, notes)
        bar.reset(total=len(rows))
        for name, pruner in rows.items():
            try:
                trace = prompt.plan(pruner) if pruner else None
                counts[name], single[name] = prompt.cost(trace), prompt.cost(trace, new_tokens=2)
            except UnsupportedModel as error:
                if options.pruner or pruner is None:
                    raise
                notes.append(f"{name}: {error}")
            bar.update()
    print(
        f"{chosen.label}: {prompt.view.tokens} visual and {prompt.beside} other tokens, "
        f"{prompt.new_tokens} generated; FLOPs, 2 per multiply-accumulate\n"
    )
    print(_table(counts, single))
    for note in notes:
        print(f"\n{note}")


def _prompt(options: argparse.Namespace) -> Prompt:
    spec = find_model(options.model)
    record = read_config(spec)
    view = family_of(spec, record).view(record, *options.image)
    if options.tokens is not None:
        view = replace(view, tokens=options.tokens, newlines=0)
    return Prompt(transformers_config(spec), view, options.text, options.new)


def _pruners(
    options: argparse.Namespace, given: "Recipe | None", prompt: Prompt, notes: list[str]
) -> "dict[str, Pruner | None]":
    """Rows' names and pruners; a note for each that could have been and is not."""
    from baselines.registry import PRUNERS, get_pruner_class
    from fitprune import FitPrune
    from harness.pruners.solve import solve

    if options.reduction is None and options.recipe is None:
        return {}
    asked = options.pruner or [name for name in PRUNERS if name != DENSE]
    found: dict[str, Pruner | None] = {}
    for name in asked:
        is_fitted = issubclass(get_pruner_class(name), FitPrune)
        try:
            if is_fitted:
                recipe, origin = _recipe(options, given, prompt)
                found[f"{name} ({origin})"] = FitPrune(recipe)
            elif options.reduction is not None:
                tokens = prompt.view.tokens
                found[name] = solve(name, options.reduction, prompt.config, visual_tokens=tokens)
        except (BudgetError, UnsupportedModel) as error:
            if options.pruner:
                raise
            notes.append(f"{name}: {error}")
    return found


def _recipe(options: argparse.Namespace, given: "Recipe | None", prompt: Prompt) -> "tuple[Recipe, str]":
    """The recipe to count, and where it is from. Raises BudgetError where there is none."""
    if given is not None:
        return given.for_model(prompt.config), "its recipe"
    published = _nearest_published(options.model, options.reduction)
    if published is None:
        raise BudgetError(
            f"needs --recipe FILE: make one with 'fitprune fit --model {options.model} "
            f"--reduction {options.reduction:g} -o FILE'"
        )
    recipe = published.for_model(prompt.config)
    return recipe, f"published {recipe.reduction:.1%}"


def _nearest_published(model: str, reduction: float) -> "Recipe | None":
    """Of the recipes published for this model, the one whose reduction is nearest."""
    from fitprune import Recipe
    from fitprune.recipes.published import SCHEME, published_names

    recipes = [Recipe.load(SCHEME + name) for name in published_names() if name.partition("@")[0] == model]
    return min(recipes, key=lambda recipe: abs(recipe.reduction - reduction), default=None)


def _table(counts: "Mapping[str, FlopCount]", single: "Mapping[str, FlopCount]") -> str:
    """A row for each method; `single` are the costs with one generated token after the first."""
    from tabulate import tabulate

    columns: dict[str, Callable[[str], float]] = {
        "vision tower": lambda name: counts[name].vision,
        "projector": lambda name: counts[name].projector,
        "prefill": lambda name: counts[name].prefill,
        "of it, scoring": lambda name: counts[name].scoring,
        "decode, per token": lambda name: single[name].decode,
        "total": lambda name: counts[name].total,
    }
    body = [
        [name, *(_readable(value(name)) for value in columns.values()), f"{1 - counts[name].reduction(counts[DENSE]):.1%}"]
        for name in counts
    ]
    align = ["left", *["right"] * (len(columns) + 1)]
    return tabulate(body, ["", *columns, "of dense"], tablefmt="simple", disable_numparse=True, colalign=align)


def _readable(flops: float) -> str:
    """Three decimals and a unit: 8.504 T."""
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if flops >= unit:
            return f"{flops / unit:.3f} {name}"
    return str(int(flops))
