"""`survivors`: which tokens stay in one layer by the published rule; `simulate`: the rule over all layers."""

import torch


def survivors(
    cross: torch.Tensor,
    own: torch.Tensor,
    present: torch.Tensor,
    alpha: float,
    cross_mass: torch.Tensor,
    own_mass: torch.Tensor,
) -> torch.Tensor:
    """Tokens that stay in one layer: bool (batch, n). `Trajectory` says the rule.

    Args:
        cross, own: float32 (batch, n), importances in this layer; present: bool (batch, n), which places hold a token.
        alpha: in [0, 1].
        cross_mass, own_mass: (batch,), sums of the unpruned model's importances in this layer.
    """
    share = 1.0 - alpha
    return present & ~(_lowest(cross, share * cross_mass, present) & _lowest(own, share * own_mass, present))


def _lowest(score: torch.Tensor, least: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """The largest set of lowest-scored tokens whose removal leaves a sum of at least `least` (batch,): bool (batch, n)."""
    order = score.masked_fill(~present, float("inf")).argsort(dim=1, stable=True)
    ordered = score.double().gather(1, order).masked_fill(~present.gather(1, order), 0)
    left = ordered.sum(1, keepdim=True) - ordered.cumsum(1)
    # Scores are not negative, so what is left falls from place to place. Rounding may leave the last sum a hair below 0.
    fits = (left.clamp(min=0) >= least.double()[:, None]) & present.gather(1, order)
    return torch.zeros_like(fits).scatter(1, order, fits)


def simulate(cross: torch.Tensor, own: torch.Tensor, present: torch.Tensor, alpha: float) -> torch.Tensor:
    """The rule followed without running the pruned model: from the unpruned model's importances alone.

    What it leaves out: that attention is renormalised over the survivors, and that the hidden states change.

    Args:
        cross, own: float32 (batch, layers, n), of the unpruned model.
        present: bool (batch, n): which places hold a token.
        alpha: as in `drop_counts`.

    Returns:
        LongTensor (batch, layers): tokens dropped in each layer.
    """
    dropped = []
    cross_mass, own_mass = cross.sum(2), own.sum(2)
    for layer in range(cross.shape[1]):
        kept = survivors(cross[:, layer], own[:, layer], present, alpha, cross_mass[:, layer], own_mass[:, layer])
        dropped.append(present.sum(1) - kept.sum(1))
        present = kept
    return torch.stack(dropped, 1)
