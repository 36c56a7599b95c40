"""`CalibrationBatches`: what calibration batches give on a model, measured once and kept in a folder."""

import numpy as np
import torch
from torch import nn

from fitprune.errors import FitPruneError
from fitprune.fitting.alpha_search import ALPHA_STEPS
from fitprune.fitting.identity import model_identity
from fitprune.fitting.tensor_store import TensorStore, digest
from fitprune.pruner import Pruner
from fitprune.search.after import embed_after
from fitprune.search.prompts import Batch, Prompt, embed
from fitprune.search.rule import simulate
from fitprune.search.runs import counts, measure

# Of a stored prompt that is run at each alpha: what leaves the first layer, before which nothing is pruned, is its embeddings.
PROMPT = "{}-after-first"


class CalibrationBatches:
    """Batches on a model: the unpruned model's statistics, and the drops of the pruned model at one alpha.

    Memory holds a few numbers per sample and layer. Hidden states and importances of each visual token go to the store.

    Attributes:
        store: where they are.
        sequential: whether `run` runs the pruned model; if not, it simulates the rule.
        after: what prunes the prompts before the decoder; None for nothing.
        visual_tokens: per batch, an int array (samples,).
        text_tokens: per batch, a float tensor (samples,).
        masses: per batch, "cross" and "own": float32 (samples, layers), the sums over visual tokens.
    """

    def __init__(self, model: nn.Module, store: TensorStore, sequential: bool, after: Pruner | None = None) -> None:
        self.model, self.store, self.sequential, self.after = model, store, sequential, after
        self.visual_tokens: list[np.ndarray] = []
        self.text_tokens: list[torch.Tensor] = []
        self.masses: list[dict[str, torch.Tensor]] = []
        self._identity = model_identity(model) + ("" if after is None else repr(after))
        self._names: list[str] = []

    @property
    def samples(self) -> int:
        """Samples whose statistics are there."""
        return sum(len(counted) for counted in self.visual_tokens)

    def add(self, batch: Batch) -> None:
        """Measure one more batch on the unpruned model, or take its statistics from the store."""
        name = digest(self._identity, batch)
        seen = self.store.get(name)
        if seen is None or (self.sequential and not self.store.has(PROMPT.format(name))):
            prompt = embed(self.model, batch) if self.after is None else embed_after(self.model, batch, self.after)
            cross, own, trace, entered = measure(self.model, prompt)
            present = torch.arange(cross.shape[2]) < trace.visual_tokens.cpu()[:, None]
            seen = {"cross": cross.cpu(), "own": own.cpu(), "present": present, "text": trace.text_tokens.cpu()}
            if self.sequential:
                self.store.put(PROMPT.format(name), entered.tensors())
            self.store.put(name, seen)
        self._names.append(name)
        self.masses.append({part: seen[part].float().sum(2) for part in ("cross", "own")})
        self.visual_tokens.append(seen["present"].sum(1).numpy())
        self.text_tokens.append(seen["text"].float())

    def run(self, step: int, batch: int) -> np.ndarray:
        """Tokens dropped at alpha = step / 128 in one batch, by the mode's rule: int array (samples, layers)."""
        if not self.sequential:
            return self.simulate(step, batch)
        name = f"{self._names[batch]}-alpha{step}"
        found = self.store.get(name)
        if found is None:
            given, seen = self._load(PROMPT.format(self._names[batch])), self._load(self._names[batch])
            dropped = counts(self.model, Prompt.of(given), step / ALPHA_STEPS, seen["cross"], seen["own"])
            found = {"dropped": dropped}
            self.store.put(name, found)
        return found["dropped"].numpy()

    def simulate(self, step: int, batch: int) -> np.ndarray:
        """As `run`, from the unpruned model's importances alone."""
        seen = self._load(self._names[batch])
        return simulate(seen["cross"], seen["own"], seen["present"], step / ALPHA_STEPS).numpy()

    def _load(self, name: str) -> dict[str, torch.Tensor]:
        found = self.store.get(name)
        if found is None:
            raise FitPruneError(f"statistics have gone from {self.store.folder}; fit again.")
        return found
