"""What does a prompt cost? FLOPs of a vision-language model, dense or pruned, by part and by operator.

The figure is analytic: the model's configuration and the number of tokens that really entered and left each decoder
layer. It agrees with torch's FlopCounterMode and fvcore on the same forward (tests/harness/cost/test_flops_checkers.py).
Padding is not counted: the cost of a prompt does not depend on the batch it happens to be in, so on a padded batch the figure
is lower than what a counter of dense kernels sees.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from fitprune import FitPruneError, Pruner
from fitprune.models.parts import SEE_VIDEOS, image_token_id
from harness.cost.decoder import Tokens, counts, decode_macs, prefill_macs
from harness.cost.vision import VisionCost, one_size_cost, vision_cost

CONVENTION = (
    "1 multiply-accumulate = 2 FLOPs; three FFN matrices in the decoder; attention as the full rectangle of queries x "
    "keys (the causal half is not subtracted: dense kernels compute it, FlopCounterMode and fvcore count it); vision "
    "tower, projector, text tokens, lm_head (one row per prompt and step) and the pruner's scoring counted; real "
    "tokens only, no padding"
)
NOT_COUNTED = (
    "norms",
    "activations",
    "softmax",
    "rotary embedding",
    "additions (biases, residuals, position embeddings)",
    "embedding look-up",
    "resampling of features",
    "sampling",
    "moving of tokens and cache",
)


@dataclass(frozen=True)
class FlopCount:
    """FLOPs (2 per multiply-accumulate) of all samples together."""

    vision: int
    projector: int
    prefill: int
    """Decoder over the prompts, first `lm_head` rows and the pruner's scoring."""
    decode: int
    """The steps after the first new token."""
    scoring: int
    """What the pruner spent on choosing tokens; part of `prefill`."""
    samples: int
    by_operator: Mapping[str, int] = field(repr=False)
    """`part.operator` → FLOPs; they sum up to `total`."""
    not_counted: tuple[str, ...] = field(default=NOT_COUNTED, repr=False)
    convention: str = field(default=CONVENTION, repr=False)

    @property
    def total(self) -> int:
        return self.vision + self.projector + self.prefill + self.decode

    def reduction(self, dense: "FlopCount") -> float:
        """Share of `dense`'s total that this saves, end to end."""
        return 1.0 - self.total / dense.total


def count(
    model: Any, inputs: Mapping[str, torch.Tensor], pruner: Pruner | None = None, new_tokens: int = 1, trace: Any = None
) -> FlopCount:
    """FLOPs of `model` on the batch `inputs` (processor output), generating `new_tokens` per sample.

    Without a pruner nothing is run. With one, the prefill is run once under it, and its trace gives the tokens of each
    layer; the `trace` of a prefill already run on these inputs spares that. Raises UnsupportedModel for a tower,
    projector or decoder whose arithmetic is not known.
    """
    if trace is None and pruner is not None:
        with torch.inference_mode(), pruner(model) as live:
            model(**inputs, logits_to_keep=1)
        trace = live
    return count_prompts(model.config, inputs, trace, new_tokens)


def count_prompts(config: Any, inputs: Mapping[str, torch.Tensor], trace: Any = None, new_tokens: int = 1) -> FlopCount:
    """`count` of a model with this configuration, from the trace or plan of a prefill, or of the dense model without one."""
    text, _, visual_in, visual_out, scoring = token_counts(config, inputs, trace)
    vision = vision_cost(config, inputs, None if trace is None else trace.tower)
    return count_from_tokens(config, text, visual_in, visual_out, new_tokens, vision=vision, scoring_macs=scoring)


def token_counts(
    config: Any, inputs: Mapping[str, torch.Tensor], trace: Any
) -> tuple[torch.Tensor, torch.Tensor, Sequence[torch.Tensor], Sequence[torch.Tensor], int]:
    """Per prompt: text tokens, visual tokens, and those that enter and leave each layer; MACs of scoring. Without a trace
    nothing was pruned.
    """
    if trace is None:
        text, visual = prompt_tokens(config, inputs)
        every = [visual] * config.get_text_config().num_hidden_layers
        return text, visual, every, every, 0
    if len(trace.text_tokens) != len(inputs["input_ids"]):
        raise FitPruneError(f"the trace is of {len(trace.text_tokens)} samples, the inputs are of {len(inputs['input_ids'])}")
    return trace.text_tokens, trace.visual_tokens, trace.visual_in, trace.visual_out, sum(map(int, trace.scoring_macs))


def count_from_tokens(
    config: Any,
    text_tokens: Tokens,
    visual_in: Sequence[Tokens],
    visual_out: Sequence[Tokens],
    new_tokens: Tokens = 1,
    *,
    vision: VisionCost | None = None,
    scoring_macs: int | Iterable[int] = 0,
) -> FlopCount:
    """FLOPs from recorded token counts alone, for any number of samples at once; no model is needed.

    `text_tokens`: per sample, prompt tokens that are neither visual nor padding. `visual_in[l]`, `visual_out[l]`: per
    sample, visual tokens that enter decoder layer l, and those that take part in its output projection and FFN.
    `new_tokens`: one number, or one per sample. `vision`: what the images cost (`vision.vision_cost` of their
    batches, added up), by default one image per sample, which only a LLaVA has a cost for without seeing them.
    `scoring_macs`: multiply-accumulates of the pruner, in all or per layer.
    """
    text_config = config.get_text_config()
    samples = len(counts("text_tokens", text_tokens))
    vision = one_size_cost(config, samples) if vision is None else vision
    macs = {
        "vision": dict(vision.vision),
        "projector": dict(vision.projector),
        "prefill": prefill_macs(text_config, text_tokens, visual_in, visual_out),
        "decode": decode_macs(text_config, text_tokens, visual_in, new_tokens),
    }
    scoring = scoring_macs if isinstance(scoring_macs, int) else sum(int(layer) for layer in scoring_macs)
    macs["prefill"]["scoring"] = scoring
    return FlopCount(
        vision=2 * sum(macs["vision"].values()),
        projector=2 * sum(macs["projector"].values()),
        prefill=2 * sum(macs["prefill"].values()),
        decode=2 * sum(macs["decode"].values()),
        scoring=2 * scoring,
        samples=samples,
        by_operator={f"{part}.{name}": 2 * value for part, ops in macs.items() for name, value in ops.items()},
    )


def visual_macs(text_config: Any, visual_in: Sequence[Tokens], visual_out: Sequence[Tokens]) -> int:
    """Multiply-accumulates that the decoder spends on the visual tokens alone; the counts as in `count_from_tokens`."""
    no_text = [0] * len(counts("visual_in", visual_in[0]))
    macs = prefill_macs(text_config, no_text, visual_in, visual_out)
    return sum(value for name, value in macs.items() if name != "lm_head")


def prompt_tokens(config: Any, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Text and visual tokens of each prompt, both (batch,); padding is neither.

    Newline tokens of tiled models are among the visual ones here, since only the decoder's own input tells them apart; a
    trace has them among the text.
    """
    ids = inputs["input_ids"]
    mask = inputs.get("attention_mask")
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    seen = ids == image_token_id(config)
    if config.model_type in SEE_VIDEOS:
        seen |= ids == config.video_token_id
    visual = (seen & real).sum(1)
    return real.sum(1) - visual, visual
