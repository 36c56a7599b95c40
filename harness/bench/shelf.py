"""`Shelf`: the model that is in memory, what is known of the others, and what is kept for the next cell of the same model.

`OutlineShelf` is the part that loads no weights, for a plan.
"""

import contextlib
import gc
from collections import OrderedDict
from collections.abc import Mapping

from fitprune.engine.image_cache import Kept, remembering_images
from harness.answering.input_cache import InputCache
from harness.models.facts import ModelFacts, model_facts
from harness.models.loading import LoadedModel, ModelOutline, load_model, load_outline


class NeedsWeights(Exception):
    """A model was asked for where none is loaded. Plans catch it; it is no error of the user's."""


class OutlineShelf:
    """Models without their weights, one outline in memory at a time.

    Args:
        device: where models would be loaded; None leaves it to the loader.
        facts: of models that would be loaded elsewhere.
    """

    def __init__(self, device: str | None = None, facts: Mapping[str, ModelFacts] | None = None) -> None:
        self.device = device
        self._facts = dict(facts or {})
        self._outline: ModelOutline | None = None

    def facts(self, name: str) -> ModelFacts:
        """What identifies the model; loads nothing."""
        if name not in self._facts:
            self._facts[name] = model_facts(name, self.device)
        return self._facts[name]

    def outline(self, name: str) -> LoadedModel | ModelOutline:
        """What makes the model's inputs: processor and configuration at least."""
        if self._outline is None or self._outline.name != name:
            self._outline = load_outline(name)
        return self._outline

    def model(self, name: str) -> LoadedModel:
        """The model itself. Raises NeedsWeights."""
        raise NeedsWeights(name)


class Shelf(OutlineShelf):
    """One model in memory at a time.

    Attributes:
        inputs: of the suites that the model in memory was asked.
    """

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        self.inputs = InputCache()
        self._loaded: LoadedModel | None = None
        self._encoded: Kept = OrderedDict()

    def model(self, name: str) -> LoadedModel:
        """The model, loaded when it is not the one in memory."""
        if self._loaded is None or self._loaded.name != name:
            if self._loaded is not None:  # let go of the old one first
                self._loaded, self.inputs, self._encoded = None, InputCache(), OrderedDict()
                gc.unfreeze()
            self._loaded = load_model(name, self.device)
            # Modules, tokenizer and libraries stay: a collector that walks them while lmms-eval scores takes a tenth of a cell.
            gc.collect()
            gc.freeze()
        return self._loaded

    def outline(self, name: str) -> LoadedModel:
        return self.model(name)

    def remembering(self, loaded: LoadedModel) -> contextlib.AbstractContextManager[object]:
        """Inside, images that the model in memory has encoded before are not encoded again."""
        # Inputs that are kept on the CPU come back as the very same tensors, and their images need no second look.
        if loaded.device != "cpu":
            return contextlib.nullcontext()
        return remembering_images(loaded.model, kept=self._encoded)
