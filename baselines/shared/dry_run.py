"""Which tokens enter which layer, and what scoring costs, without the model: a pruner run on a narrow decoder.

How many tokens a method keeps depends on the numbers of layers and tokens, not on the width of the decoder; what its
scoring costs grows with the width in a straight line, the products of queries and keys, and with its square where a method
projects keys ahead. So the method itself runs, with its own code, on three decoders of one head and a few channels, with as
many layers and tokens as the real one.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import torch

from baselines.shared.dry_tower import before_decoder, of_a_video, through_tower
from fitprune import Composed, Pruner, Recipe
from fitprune.interface.trace import TowerCounts
from fitprune.models.sizes import DecoderSizes

IMAGE, PAD = 2, 0
TEXT, STEP = 1, 4
WIDTHS = (STEP, 2 * STEP, 3 * STEP)


@dataclass(frozen=True)
class Plan:
    """What `fitprune.Trace` records, for one prompt.

    Attributes:
        text_tokens, visual_tokens: (1,).
        visual_in, visual_out: per decoder layer, (1,): tokens that enter it, and that its output projection and FFN see.
        scoring_macs: per layer.
        tower: what runs in the vision tower, where the pruner changes that; else None.
    """

    text_tokens: torch.Tensor
    visual_tokens: torch.Tensor
    visual_in: list[torch.Tensor]
    visual_out: list[torch.Tensor]
    scoring_macs: list[int]
    tower: TowerCounts | None = None


def plan(pruner: Pruner, config: Any, text_tokens: int, visual_tokens: int, views: int = 1) -> Plan:
    """What `pruner` does to a prompt of one image, its text after it, on the model with this configuration.

    Exact for methods whose counts depend on counts alone. Where a method's scoring depends on how many text tokens it
    chooses, all are taken to be chosen. A method that looks into the vision tower, or changes it, prunes before the first
    layer, and nowhere else; `views` is how many pictures the tower sees of the image. So does, among several pruners, one
    whose tokens such a method works on, and one that prunes videos alone: to it, the visual tokens are a video's. Raises what
    the method raises.
    """
    sizes = DecoderSizes.of(config)
    # In the order in which they work: what runs in the tower comes first.
    members = sorted(pruner.members, key=lambda member: not member.changes_tower)
    looking = [number for number, member in enumerate(members) if member.looks_into_tower]
    rest, left, spent, ran = [], visual_tokens, 0, None
    for number, member in enumerate(members):
        if member.vision:
            left, macs = before_decoder(member, config, left, views)
        elif member.videos:
            left, macs = of_a_video(member, config, left)
        elif member.looks_into_tower:
            left, macs, ran = through_tower(member, config, left, views)
        elif looking and number < looking[-1]:
            alone = _in_decoder(member, sizes, text_tokens, left)
            if int(alone.visual_in[0]) == left:
                rest.append(member)
                continue
            left, macs = int(alone.visual_in[0]), alone.scoring_macs[0]
        else:
            rest.append(member)
            continue
        spent += macs
    if rest and left:
        found = _in_decoder(Composed(rest) if len(rest) > 1 else rest[0], sizes, text_tokens, left)
    else:
        entering = [torch.tensor([left])] * sizes.layers
        found = Plan(torch.tensor([text_tokens]), torch.tensor([left]), entering, entering, [0] * sizes.layers)
    scoring = [found.scoring_macs[0] + spent, *found.scoring_macs[1:]]
    return dataclasses.replace(found, visual_tokens=torch.tensor([visual_tokens]), scoring_macs=scoring, tower=ran)


class Plans:
    """The plans of one pruner on one model, for prompts of one view, each made once.

    What works before the decoder alone sees no text: one dry run serves prompts of any length. How the cost of scoring in the
    decoder grows with the text is the method's own affair, in steps of blocks or up to a limit, so nothing is interpolated.
    """

    def __init__(self, pruner: Pruner, config: Any) -> None:
        self.pruner, self.config = pruner, config
        self._sees_text = not all(member.looks_into_tower or member.videos for member in pruner.members)
        self._known: dict[tuple[int | None, int], Plan] = {}

    def of(self, text_tokens: int, visual_tokens: int) -> Plan:
        """What `plan` returns; raises what it raises."""
        place = text_tokens if self._sees_text else None, visual_tokens
        if place not in self._known:
            self._known[place] = plan(self.pruner, self.config, text_tokens, visual_tokens)
        return dataclasses.replace(self._known[place], text_tokens=torch.tensor([text_tokens]))


def _in_decoder(pruner: Pruner, sizes: DecoderSizes, text_tokens: int, visual_tokens: int) -> Plan:
    """What a pruner that does not look into the tower does."""
    narrow = _run(pruner, sizes.layers, text_tokens, visual_tokens, WIDTHS[0])
    scoring = list(narrow.scoring_macs)
    if any(scoring):  # who spends nothing on the narrowest spends nothing
        wider = (_run(pruner, sizes.layers, text_tokens, visual_tokens, width).scoring_macs for width in WIDTHS[1:])
        scoring = [_at_size(macs, sizes) for macs in zip(scoring, *wider, strict=True)]
    return Plan(narrow.text_tokens, narrow.visual_tokens, narrow.visual_in, narrow.visual_out, scoring)


def _at_size(macs: tuple[int, ...], sizes: DecoderSizes) -> int:
    """The multiply-accumulates at `WIDTHS`, continued to a decoder's sizes: a straight line in the size of its queries, and a
    square that is hidden size times size of keys."""
    first, second, third = macs
    square = (third - 2 * second + first) / (2 * STEP**2)
    line = (second - first) / STEP - 3 * STEP * square
    constant = first - STEP * line - STEP**2 * square
    return round(constant + line * sizes.q_size + square * sizes.hidden_size * sizes.kv_size)


@torch.inference_mode()
def _run(pruner: Pruner, layers: int, text_tokens: int, visual_tokens: int, width: int) -> Any:
    """The trace of one prefill on a random decoder of one head of `width` channels."""
    model = _decoder(layers, text_tokens + visual_tokens, width)
    ids = torch.full((1, visual_tokens + text_tokens), TEXT)
    ids[:, :visual_tokens] = IMAGE
    with _unbound(pruner)(model) as trace:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), logits_to_keep=1, use_cache=False)
    return trace


def _unbound(pruner: Pruner) -> Pruner:
    """The pruner with recipes that fit any decoder of as many layers."""
    if isinstance(pruner, Composed):
        return dataclasses.replace(pruner, pruners=[_unbound(member) for member in pruner.members])
    recipes: dict[str, Any] = {
        field.name: dataclasses.replace(value, sizes=None)
        for field in dataclasses.fields(pruner)
        if isinstance(value := getattr(pruner, field.name), Recipe)
    }
    return dataclasses.replace(pruner, **recipes) if recipes else pruner


@functools.lru_cache(maxsize=2 * len(WIDTHS))
def _decoder(layers: int, tokens: int, width: int) -> torch.nn.Module:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=4,
            intermediate_size=4,
            num_hidden_layers=1,
            num_attention_heads=1,
            image_size=2,
            patch_size=2,
            projection_dim=4,
        ),
        text_config=LlamaConfig(
            vocab_size=4,
            hidden_size=width,
            intermediate_size=width,
            num_hidden_layers=layers,
            num_attention_heads=1,
            max_position_embeddings=tokens,
            pad_token_id=PAD,
            bos_token_id=None,
            eos_token_id=None,
        ),
        image_token_index=IMAGE,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config).eval()
    # All text tokens are alike, and exactly so: a method that compares them with the image can prefer none.
    model.get_input_embeddings().weight.data[TEXT] = 0
    return model
