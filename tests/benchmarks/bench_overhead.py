"""What pruning costs the host: waits for the device, and operations launched, over those of the dense model.

    python -m tests.benchmarks.bench_overhead [--layers 32] [--reduction 0.5] [--samples 32]

A GPU runs ahead of its host until the host asks for a number. Both are counted on the CPU, where each prefill runs once: of a
random LLaVA with 576 visual tokens, alone and in a left-padded batch of two, and of three decoded tokens after it; of a
LLaVA-OneVision of as many layers that is shown videos for methods that prune these. FitPrune drops by the published 60 %
recipe. What is a kernel on a GPU (the column sums, a greedy choice) counts as one operation, though
it is many in torch on a CPU.

A second table has the operations of a prefill in five families of models, whose images differ in size; with videos for methods
that prune these.

A third is of a fit on so many samples, against the published procedure: waits, and passes, forwards that enter the first
layer. That procedure takes its samples one by one, and is counted on one of them.
"""

import argparse
import functools

import torch
from tabulate import tabulate
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, PreTrainedModel

from baselines.registry import PRUNERS, get_pruner_class
from fitprune import FitPrune, FitPruneError, Pruner, Recipe
from fitprune.models.parts import model_parts
from tests.benchmarks.bench_fit import Workload, sharpened
from tests.support import families, videos
from tests.support.waits import of_decoding, of_fit, of_prefill

TOKENS = 576
IMAGE = 199
VIDEOS = "llava_onevision"
FIT_REDUCTION, FIT_BATCH = 0.6, 8


def model_of(layers: int) -> LlavaForConditionalGeneration:
    """A narrow LLaVA with random weights, and as many visual tokens as LLaVA-1.5."""
    text = LlamaConfig(
        vocab_size=IMAGE + 1,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    tower = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=336,
        patch_size=14,
        projection_dim=16,
    )
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=tower, text_config=text, image_token_id=IMAGE, image_seq_length=TOKENS)
    return LlavaForConditionalGeneration(config).eval()


def batch(samples: int) -> dict[str, torch.Tensor]:
    """Prompts of different lengths, padded on the left."""
    rows = [[1] * 5 + [IMAGE] * TOKENS + list(range(2, 30 - 7 * number)) for number in range(samples)]
    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[0] * (longest - len(row)) + row for row in rows]),
        "attention_mask": torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]),
        "pixel_values": torch.randn(samples, 3, 336, 336),
    }


def pruner_of(name: str, model: PreTrainedModel, reduction: float, tokens: int = TOKENS) -> Pruner:
    """The method at a budget for `tokens` visual tokens. Raises FitPruneError where it cannot reach it, or prune the model."""
    if name == "fitprune":
        published = Recipe.published("llava-1.5-7b", 60).drop
        return FitPrune(Recipe(drop=published[: model.config.text_config.num_hidden_layers], visual_tokens=TOKENS))
    method = get_pruner_class(name)
    pruner = method() if name == "dense" else method.for_reduction(model.config, reduction, visual_tokens=tokens)
    pruner.require(model)
    return pruner


def shown_videos(family: str) -> list[dict[str, torch.Tensor]]:
    """A prompt with a video, and a left-padded batch of two."""
    clips = [["w1 w2", videos.Clip(4), "w3 w4 w5 w6"], ["w6", videos.Clip(4)]]
    return [videos.inputs(videos.processor(family), clips[:samples]) for samples in (1, 2)]


def in_family(family: str, layers: int, reduction: float) -> list[str]:
    """For each method, the operations of a prefill beyond the dense one's: of a prompt, and of a padded batch of two."""
    model = families.build(family, layers)
    token = model_parts(model).visual_ids
    texts = [["w1 w2", (40, 20), "w3 w4 w5 w6"], ["w6", (44, 48)]]
    seen = {"image": [families.inputs(families.processor(family), texts[:samples]) for samples in (1, 2)]}
    if "video" in token:
        seen["video"] = shown_videos(family)
    beside = {kind: [of_prefill(model, given)[1] for given in inputs] for kind, inputs in seen.items()}
    cells = []
    for name in PRUNERS:
        kind = "video" if get_pruner_class(name).videos else "image"
        try:
            inputs, dense = seen.get(kind, []), beside.get(kind, [])
            tokens = int((inputs[0]["input_ids"] == token[kind]).sum()) if inputs else TOKENS
            pruner = pruner_of(name, model, reduction, tokens)
        except FitPruneError:
            cells.append("cannot")
            continue
        more = [of_prefill(model, given, pruner)[1] - own for given, own in zip(inputs, dense, strict=True)]
        cells.append(" / ".join(map(str, more)))
    return cells


def row_of(
    name: str, model: PreTrainedModel, reduction: float, inputs: list, dense: list, tokens: int = TOKENS
) -> list[str | int]:
    """A method's row: what it adds to the dense model's."""
    try:
        pruner = pruner_of(name, model, reduction, tokens)
    except FitPruneError as error:
        return [name, f"cannot: {error}"]
    row: list[str | int] = [name]
    for given, (prefill, token) in zip(inputs, dense, strict=True):
        waits, operations = of_prefill(model, given, pruner)
        row += [waits - prefill[0], operations - prefill[1]]
        waits, operations = of_decoding(model, given, pruner)
        row += [round(waits - token[0], 1), round(operations - token[1])]
    return row


def fit_rows(layers: int, samples: int) -> list[list[str | int]]:
    """A fit in both modes, and the published procedure: what each takes, and times the first's."""
    work = Workload.random(sharpened(model_of(layers)), samples)
    counted = {
        f"fit, {mode}": of_fit(work.model, functools.partial(work.fit, [FIT_REDUCTION], mode, FIT_BATCH))
        for mode in ("sequential", "one-pass")
    }
    waits, passes = of_fit(work.model, functools.partial(work.first(1).published, FIT_REDUCTION))
    counted["published, as its authors run it"] = waits * samples, passes * samples
    first = counted["fit, sequential"]
    return [
        [name, layers, *(cell for one, own in zip(taken, first, strict=True) for cell in (one, f"{one / own:.1f}×"))]
        for name, taken in counted.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32, help="of the decoder (default: %(default)s)")
    parser.add_argument("--reduction", type=float, default=0.5, help="of all methods but FitPrune (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=32, help="of the fit (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, inputs = model_of(options.layers), [batch(1), batch(2)]
    dense = [(of_prefill(model, given), of_decoding(model, given)) for given in inputs]
    seer, clips = families.build(VIDEOS, options.layers), shown_videos(VIDEOS)
    beside = [(of_prefill(seer, given), of_decoding(seer, given)) for given in clips]
    frames = int((clips[0]["input_ids"] == model_parts(seer).visual_ids["video"]).sum())
    header = ["method"]
    for samples, (prefill, token) in zip(("one", "two"), dense, strict=True):
        header += [
            f"{samples}: waits\n(dense {prefill[0]})",
            f"operations\n({prefill[1]})",
            f"a token: waits\n({token[0]:.0f})",
            f"operations\n({token[1]:.0f})",
        ]
    rows = []
    for name in PRUNERS:
        if get_pruner_class(name).videos:
            rows.append(row_of(name, seer, options.reduction, clips, beside, frames))
            rows[-1][0] = f"{name} (video)"
        else:
            rows.append(row_of(name, model, options.reduction, inputs, dense))
    print(tabulate(rows, header, tablefmt="simple"))
    print("(video): over the dense LLaVA-OneVision's " + "; ".join(f"{prefill}, a token {token}" for prefill, token in beside))
    columns = {family: in_family(family, options.layers, options.reduction) for family in families.FAMILIES}
    print("\n" + tabulate({"operations, one / two": list(PRUNERS), **columns}, "keys", tablefmt="simple"))
    fits = [row for layers in sorted({8, options.layers}) for row in fit_rows(layers, options.samples)]
    print(f"\nA fit at {FIT_REDUCTION:g} on {options.samples} samples, batch {FIT_BATCH} (published: 1):\n")
    print(tabulate(fits, ["procedure", "layers", "waits", "", "passes", ""], tablefmt="simple", disable_numparse=True))


if __name__ == "__main__":
    main()
