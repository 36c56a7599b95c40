"""Which tokens enter which layer, and what scoring costs, without the model: a pruner run on a narrow decoder.

How many tokens a method keeps depends on the numbers of layers and tokens, not on the width of the decoder; what its
scoring costs grows with the width in a straight line, the products of queries and keys, and with its square where a method
projects keys ahead. So the method itself runs, with its own code, on three decoders of one head and a few channels, with as
many layers and tokens as the real one.
"""

import dataclasses
import functools
import math
import operator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from baselines.shared.budget import TEXT_TOKENS
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

    What works before the decoder alone sees no text: one dry run serves prompts of any length. Of methods that say how their
    scoring grows with the text (`Hooks.text_degree`), one more than the degree serves all from `TEXT_TOKENS` on: a polynomial
    is continued, exactly. For the others nothing is interpolated: costs may grow in steps of blocks.
    """

    def __init__(self, pruner: Pruner, config: Any) -> None:
        self.pruner, self.config = pruner, config
        degrees = [member.text_degree for member in pruner.members if not (member.looks_into_tower or member.videos)]
        known = [degree for degree in degrees if degree is not None]
        self._sees_text = bool(degrees)
        # Means of powers of two are free of rounding, so that a method which compares text tokens finds none above the mean.
        tried = tuple(TEXT_TOKENS << step for step in range(max(known, default=0) + 1))
        self._tried = tried if len(known) == len(degrees) else None
        self._known: dict[tuple[int | None, int], Plan] = {}

    def of(self, text_tokens: int, visual_tokens: int) -> Plan:
        """What `plan` returns; raises what it raises."""
        text = torch.tensor([text_tokens])
        if not self._sees_text or self._tried is None or text_tokens < TEXT_TOKENS:
            return dataclasses.replace(self._dry(text_tokens, visual_tokens), text_tokens=text)
        runs = [self._dry(tried, visual_tokens) for tried in self._tried]
        weights = _lagrange(self._tried, text_tokens)
        layers = zip(*(run.scoring_macs for run in runs), strict=True)
        scoring = [int(sum(map(operator.mul, weights, macs))) if any(macs) else 0 for macs in layers]
        return dataclasses.replace(runs[0], text_tokens=text, scoring_macs=scoring)

    def _dry(self, text_tokens: int, visual_tokens: int) -> Plan:
        place = text_tokens if self._sees_text else None, visual_tokens
        if place not in self._known:
            self._known[place] = plan(self.pruner, self.config, text_tokens, visual_tokens)
        return self._known[place]


@functools.cache
def _lagrange(places: tuple[int, ...], at: int) -> list[Fraction]:
    """What the values of a polynomial at `places` weigh in its value elsewhere."""
    others = [[other for other in places if other != place] for place in places]
    return [
        math.prod((Fraction(at - other, place - other) for other in rest), start=Fraction(1))
        for place, rest in zip(places, others, strict=True)
    ]


def _in_decoder(pruner: Pruner, sizes: DecoderSizes, text_tokens: int, visual_tokens: int) -> Plan:
    """What a pruner that does not look into the tower does."""
    narrow = _run(pruner, sizes.layers, text_tokens, visual_tokens, WIDTHS[0])
    scoring = list(narrow.scoring_macs)
    if any(scoring):  # who spends nothing on the narrowest spends nothing
        wider = (_run(pruner, sizes.layers, text_tokens, visual_tokens, width).scoring_macs for width in WIDTHS[1:])
        scoring = [_at_size(macs, sizes) for macs in zip(scoring, *wider, strict=True)]
    same: dict[int, torch.Tensor] = {}  # layers with as many tokens share one count: what adds them up is quicker
    entering, leaving = ([same.setdefault(int(row), row) for row in side] for side in (narrow.visual_in, narrow.visual_out))
    return Plan(narrow.text_tokens, narrow.visual_tokens, entering, leaving, scoring)


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
    model = _decoder(layers, width)
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
def _decoder(layers: int, width: int) -> torch.nn.Module:
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
            max_position_embeddings=1,  # rotary embeddings are worked out for any
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
    for layer in model.get_decoder().layers:  # one that nothing is seen of changes no count
        layer.forward = _pass_on
    return model


def _pass_on(hidden_states: torch.Tensor, **_: Any) -> torch.Tensor:
    return hidden_states
