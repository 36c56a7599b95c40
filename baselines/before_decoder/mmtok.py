"""MMTok: visual tokens stay that together cover the words of the question and all other visual tokens."""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from baselines.shared.budget import TEXT_TOKENS
from baselines.shared.choosing import greedy
from baselines.shared.counts import check_counts, share
from baselines.shared.questions import LETTER, SHORT, without
from baselines.shared.repacked import Repacked
from baselines.shared.tower_attention import dropped_after_tower
from fitprune import FitPruneError
from fitprune.interface.tokens import VisualTokens
from fitprune.models.reader import require_reader
from fitprune.models.sizes import DecoderSizes, tower_sizes

STOP_WORDS = """
a an the is are was were be been being have has had do does did it they he she we you i what where when why how who which and or
but so if then question answer to for with by from at into onto upon
"""


@dataclass
class MMTok(Repacked):
    """MMTok (Dong et al., ICLR 2026, arXiv 2508.18264; code github.com/Ironieser/MMTok), training-free.

    MMTok chooses patches of each view one by one. Patch j covers word i of the question by the softmax over patches of their
    cosine / `softmax_tv_temperature`, and patch i by that / `softmax_vv_temperature`. A word counts for 1/m, m of them, a patch
    for alpha/P. The patch is next that adds most to what the best cover of each word and patch makes in sum. A word is a token
    of the decoder's vocabulary, as its input embedding, and is compared with projected patches; patches are compared with one
    another before the projector. Survivors stand in prompt order, position ids repacked. Stage: before the decoder. Needs the
    words of the question, but neither attention nor [CLS].

    As in the authors' code, instructions for the form of the answer and stop words (articles, forms of be and have, question
    words, …) are left out. A question of stop words alone counts as a whole. The authors' code loads CLIP's text tower, and
    does not use it.

    Deviations:

    - Computed in float32.
    - The authors give each view of a LLaVA-NeXT picture the same number of tokens, padding among them. Here each view keeps
      the same share of its patches in the prompt.
    - The authors pad LLaVA-1.5's pictures to squares, keep no patch of the padding, and take patch 0 again and again where too
      few are left. transformers' processor pads nothing.
    - The authors drop all newlines. Here newlines stay; `newlines="pruned"` drops them.
    - To a prompt without a question the authors put one of their own. Here patches alone are covered.

    Attributes:
        target_vision_tokens: visual tokens that stay, of `visual_tokens` (authors' default 64).
        alpha: weight of the patches to be covered (0.5).
        softmax_tv_temperature, softmax_vv_temperature: 0.02, as the authors' code calls it, where the paper has 0.01; 0.2.
        visual_tokens: the number that the target refers to. Other numbers keep the same share, rounded view by view.
    """

    name: ClassVar[str] = "mmtok"
    vision: ClassVar[bool] = True
    target_vision_tokens: int = 64
    alpha: float = 0.5
    softmax_tv_temperature: float = 0.02
    softmax_vv_temperature: float = 0.2
    visual_tokens: int = 576

    def __post_init__(self) -> None:
        check_counts("MMTok", {"target_vision_tokens": self.target_vision_tokens}, self.visual_tokens)
        if self.alpha < 0 or min(self.softmax_tv_temperature, self.softmax_vv_temperature) <= 0:
            raise FitPruneError(
                "MMTok's alpha must not be negative, and its temperatures must be above 0, not "
                f"{self.alpha}, {self.softmax_tv_temperature} and {self.softmax_vv_temperature}."
            )

    def check(self, model: nn.Module) -> None:
        super().check(model)
        require_reader(model, self.name)

    def before_layer(self, layer: int, tokens: VisualTokens) -> torch.Tensor | None:
        if layer != 0:
            return None
        vision, there = tokens.vision, tokens.vision.in_prompt
        words = tokens.word_embeddings(key_words)
        text = pad_sequence([own.to(tokens.hidden) for own in words], batch_first=True)[vision.sample].float()
        asked = torch.tensor([len(own) for own in words], device=there.device)[vision.sample]
        count = there.sum(1)
        tokens.spend((asked * count).sum() * tokens.hidden.shape[-1] + (count**2).sum() * vision.features.shape[-1])
        unit = normalize(vision.features.float(), dim=-1)
        of_words = normalize(text, dim=-1) @ normalize(vision.by_view(tokens.features).float(), dim=-1).transpose(1, 2)
        of_patches = unit @ unit.transpose(1, 2)
        real = torch.arange(text.shape[1], device=there.device) < asked[:, None]
        cover = [
            _shares(of_words / self.softmax_tv_temperature, real, there) / asked.clamp(min=1)[:, None, None],
            _shares(of_patches / self.softmax_vv_temperature, there, there) * self.alpha / count.clamp(min=1)[:, None, None],
        ]
        keep = share(count, self.target_vision_tokens, self.visual_tokens)
        return vision.of_patches(greedy.most_covering(torch.cat(cover, 1), torch.ones_like(unit[..., 0]), there, keep))

    @classmethod
    def for_reduction(
        cls, model_config: Any, reduction: float, *, visual_tokens: int | None = None, alpha: float = 0.5
    ) -> "MMTok":
        """Solve `target_vision_tokens` for a FLOPs budget, cosines to a short question's words and among patches included."""

        def scoring(n: int, dropped: int) -> int:
            tower = tower_sizes(model_config)
            return n * TEXT_TOKENS * DecoderSizes.of(model_config).hidden_size + n * tower.patches * tower.width

        n, dropped = dropped_after_tower("MMTok", model_config, reduction, visual_tokens, scoring)
        return cls(n - dropped, alpha, visual_tokens=n)


def key_words(question: str) -> list[str]:
    """The words of a question that are to be covered."""
    text = without(question, SHORT, LETTER)
    return [word for word in re.findall(r"\b\w+\b", text) if word.lower() not in STOP_WORDS.split()] or text.split()


def _shares(logits: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Softmax of logits (views, m, P) over the columns, bool (views, P); 0 in other columns, and in rows not in (views, m)."""
    lowest = torch.finfo(logits.dtype).min
    return logits.masked_fill(~columns[:, None], lowest).softmax(-1) * (rows[:, :, None] & columns[:, None])
