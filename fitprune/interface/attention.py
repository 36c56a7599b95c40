"""`Attention`: the queries and keys of one decoder layer, and the statistics of its attention that methods ask for."""

from dataclasses import dataclass, field

import torch

from fitprune.interface.layout import HasLayout
from fitprune.scoring.column_sums import head_max_columns
from fitprune.scoring.macs import Macs, counted
from fitprune.scoring.rows import last_row_mean, row_maps, rows_mean


@dataclass
class Attention:
    """The attention of one layer in a prefill: queries and keys, rotary embedding applied.

    Attributes:
        query: (batch, heads, T, d). Where the attention was computed ahead (`VisualTokens.upcoming`): (batch, heads, 1, d), of
            each sample's last token.
        key: (batch, kv_heads, T, d).
        scaling: factor on the logits.
        together: see `causal_mask` of the engine; None where attention is causal.
        spent: multiply-accumulates of scoring so far.
    """

    query: torch.Tensor
    key: torch.Tensor
    scaling: float
    together: torch.Tensor | None = None
    spent: list[Macs] = field(default_factory=list)

    @property
    def macs(self) -> int:
        """Multiply-accumulates spent on scoring so far; waits for the device."""
        return sum(map(counted, self.spent))

    def head_max_columns(self, tokens: HasLayout, row_weights: torch.Tensor) -> torch.Tensor:
        """See `column_sums.head_max_columns`, at the visual tokens' columns: (batch, R, n), 0 in padding columns."""
        at = tokens.layout
        sums, macs = head_max_columns(
            self.query, self.key, row_weights, self.scaling, at.valid, first_row=at.first_row, together=self.together
        )
        self.spent.append(macs)
        return at.columns(sums)

    def last_token_mean(self, tokens: HasLayout) -> torch.Tensor:
        """Head-mean attention that each sample's last token pays to its visual tokens: (batch, n)."""
        at = tokens.layout
        row, macs = last_row_mean(self.query, self.key, at.last_row(), self.scaling, at.valid)
        self.spent.append(macs)
        return at.columns(row)

    def row_mean(self, tokens: HasLayout, rows: torch.Tensor) -> torch.Tensor:
        """Attention that the rows marked in `rows`, bool (batch, T), pay to each visual token, averaged over heads and over
        these rows: (batch, n), 0 in padding columns and in samples without a row."""
        at = tokens.layout
        mean, macs = rows_mean(self.query, self.key, rows, self.scaling, at.valid)
        self.spent.append(macs)
        return at.columns(mean)

    def row_columns(self, tokens: HasLayout, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention of every head that the rows marked in `rows`, bool (batch, T), pay to each visual token.

        Returns:
            The attention, (batch, heads, R, n), 0 in padding columns; and the indices of the R rows, LongTensor (batch, R),
            padded with -1, where the attention means nothing.
        """
        at = tokens.layout
        maps, chosen, macs = row_maps(self.query, self.key, rows, self.scaling, at.valid)
        self.spent.append(macs)
        return at.columns(maps), chosen
