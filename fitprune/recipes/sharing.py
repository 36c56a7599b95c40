"""Recipes on the hub: a repository holds `recipe.json` and a card that says what it drops and what it was shown not to lose."""

from itertools import accumulate
from pathlib import Path

from fitprune.errors import RecipeError
from fitprune.recipes import file
from fitprune.recipes.fields import RecipeFields

FILE = "recipe.json"
BAR = 40  # characters that stand for all visual tokens


def fetch(repository: str, revision: str | None = None) -> Path:
    """The recipe's file of a repository, downloaded once. Raises RecipeError, in one line, where there is none."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repository, FILE, revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise RecipeError(f"cannot get a recipe from {repository}: {_one_line(error)}") from None


def push(recipe: RecipeFields, repository: str, private: bool = False) -> str:
    """Write recipe and card to a repository, which is made where it is not there, in one commit; returns the commit's address.

    Raises RecipeError, in one line, before anything is sent for a recipe that could not be read again, or for a hub that
    refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        content = {FILE: file.to_text(recipe), "README.md": card(recipe, repository)}
    except (RecipeError, TypeError, ValueError) as error:
        raise RecipeError(f"the recipe cannot be written to {repository}: {_one_line(error)}") from None
    operations = [CommitOperationAdd(name, text.encode()) for name, text in content.items()]
    try:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        made = api.create_commit(repository, operations, commit_message=f"Recipe {recipe.counts}")
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise RecipeError(f"the recipe cannot be written to {repository}: {_one_line(error)}") from None
    return str(made.commit_url)


def card(recipe: RecipeFields, repository: str) -> str:
    """The card: how to use it, what it drops in each layer, as a table with bars, and its certificate."""
    model = recipe.provenance.get("model", "")
    saved = "" if recipe.sizes is None else f"It saves {recipe.reduction:.1%} of the visual tokens' FLOPs in the decoder."
    certificate = recipe.certificate
    certified = {} if certificate is None else certificate.facts(recipe.counts)
    left = [max(recipe.visual_tokens - dropped, 0) for dropped in accumulate(recipe.drop)]
    lines = ["---", "library_name: fitprune-bench", "tags: [fitprune, token-pruning, vision-language-model]"]
    lines += [f"base_model: {model}"] if model.count("/") == 1 else []
    lines += ["---", "", f"# {repository}", ""]
    lines += [
        f"A FitPrune recipe (arXiv 2409.10197){f' for {model}' if model else ''}: {recipe.visual_tokens} visual tokens.",
        saved,
    ]
    lines += ["", "```python", "from fitprune import FitPrune", "", f'pruner = FitPrune.from_pretrained("{repository}")']
    lines += ["with pruner(model):", "    model.generate(**inputs)", "```", "", "## Certificate", ""]
    lines += [f"- {name}: {text}" for name, text in certified.items()] or ["None: nothing was shown of what it loses."]
    lines += ["", "## Tokens left after each decoder layer", "", "| layer | drop | left | |", "|---|---|---|---|"]
    lines += [
        f"| {layer} | {drop} | {rest} | `{'#' * -(-BAR * rest // recipe.visual_tokens)}` |"
        for layer, (drop, rest) in enumerate(zip(recipe.drop, left, strict=True))
    ]
    return "\n".join([*lines, ""])


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
