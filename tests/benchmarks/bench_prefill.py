"""Does a pruner give in time what it saves in FLOPs? One table of ratios to dense: FLOPs, times, memory.

    python -m tests.benchmarks.bench_prefill [--model NAME] [--pruner fitprune,fastv,random] [--reduction 0.3,0.6,0.9]

Without `--model`, a LLaVA with random weights and 576 visual tokens is timed: the cost of a layer does not depend on
its weights. FitPrune's recipe is fitted on the timed prompt itself, so this table says nothing about accuracy.
"""

import argparse
import itertools

import torch
from tabulate import tabulate
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from baselines.registry import PRUNERS, get_pruner_class
from fitprune import FitPruneError
from fitprune.models.parts import image_token_id
from fitprune.models.sizes import visual_tokens
from harness.cost.flops import FlopCount, count
from harness.latency.measure import Range, compare
from harness.models.loading import load_model


def random_llava(
    width: int, layers: int, tower_width: int | None = None, tower_layers: int = 1
) -> LlavaForConditionalGeneration:
    """A LLaVA with random weights and 576 visual tokens, in Llama's proportions; a tower of one layer hardly counts."""
    side = tower_width or width // 2
    tower = CLIPVisionConfig(
        hidden_size=side,
        intermediate_size=side * 4,
        num_hidden_layers=tower_layers,
        num_attention_heads=max(side // 64, 1),
        image_size=336,
        patch_size=14,
    )
    decoder = LlamaConfig(
        hidden_size=width,
        intermediate_size=width * 43 // 16,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1),
        num_key_value_heads=max(width // 64, 1),
        vocab_size=1000,
    )
    config = LlavaConfig(vision_config=tower, text_config=decoder, image_token_id=999)
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(config).eval()


def prompt(model: LlavaForConditionalGeneration, batch: int, text: int) -> dict[str, torch.Tensor]:
    """Equal-length prompts: one random image, half of `text` random tokens before it and half after it."""
    visual = visual_tokens(model.config)
    if visual is None:
        raise FitPruneError(f"a {model.config.model_type} model has no fixed number of visual tokens; not benchmarked.")
    side = model.config.vision_config.image_size
    token = image_token_id(model.config)
    ids = torch.randint(3, 90, (batch, text + visual))
    ids[ids == token] = 90
    ids[:, text // 2 : text // 2 + visual] = token
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs["pixel_values"] = torch.randn(batch, 3, side, side, dtype=model.dtype)
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}


def table(
    model: LlavaForConditionalGeneration,
    inputs: dict[str, torch.Tensor],
    pruners: list[str],
    reductions: list[float],
    new_tokens: int,
    repeats: int,
) -> str:
    """The markdown table; a ratio in it is pruned over dense."""
    dense = count(model, inputs)
    rows = []
    for name, reduction in itertools.product(pruners, reductions):
        if name == "dense":
            raise FitPruneError("dense is what the table compares with; name the pruners to compare.")
        options = {"model": model, "batches": [inputs]} if name == "fitprune" else {}
        pruner = get_pruner_class(name).for_reduction(model.config, reduction, **options)
        cost = count(model, inputs, pruner)
        timed = compare(model, inputs, pruner, new_tokens=new_tokens, repeats=repeats)
        flops = _prompt(cost) / _prompt(dense)
        rows.append(
            [
                f"{name} {reduction:g}",
                f"{flops:.3f}",
                f"{cost.scoring / cost.prefill:.1%}",
                _with_quartiles(timed.prefill_ratio, timed.prefill_ratio_iqr),
                f"{timed.prefill_ratio / flops:.2f}",
                f"{timed.dense.prefill_ms:.0f} → {timed.pruned.prefill_ms:.0f}",
                _with_quartiles(timed.decode_ratio, timed.decode_ratio_iqr),
                f"{timed.working_memory_ratio:.2f}",
                f"{timed.kv_ratio:.2f}",
            ]
        )
    header = [
        "pruner",
        "prefill FLOPs",
        "of it scoring",
        "prefill time",
        "time / FLOPs",
        "ms",
        "decode time",
        "memory",
        "KV",
    ]
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def _prompt(cost: FlopCount) -> int:
    """FLOPs of what is timed as prefill: tower, projector and decoder."""
    return cost.vision + cost.projector + cost.prefill


def _with_quartiles(ratio: float | None, quartiles: Range | None) -> str:
    return "–" if ratio is None or quartiles is None else f"{ratio:.3f} ({quartiles[0]:.3f}–{quartiles[1]:.3f})"


def main() -> None:
    """Print the table, with what it was measured on."""
    parser = argparse.ArgumentParser(description="FLOPs and time of pruned prefills, as ratios to dense.")
    parser.add_argument("--model", help="a registry name, hub id or local folder; default: a random LLaVA")
    parser.add_argument(
        "--pruner", default=",".join(name for name, method in PRUNERS.items() if name != "dense" and not method.videos)
    )
    parser.add_argument("--reduction", default="0.3,0.6,0.9")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--width", type=int, default=512, help="of the random decoder")
    parser.add_argument("--layers", type=int, default=12, help="of the random decoder")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--text-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    try:
        if arguments.model:
            model = load_model(arguments.model, device=arguments.device).model
        else:
            model = random_llava(arguments.width, arguments.layers).to(arguments.device)
        inputs = prompt(model, arguments.batch_size, arguments.text_tokens)
        print(
            f"{arguments.model or 'random LLaVA'}, {arguments.device}, {torch.get_num_threads()} threads, {model.dtype}, "
            f"batch {arguments.batch_size}, {inputs['input_ids'].shape[1]} prompt tokens; medians of {arguments.repeats} "
            "paired repeats (quartiles); ratios are pruned / dense.\n"
        )
        names = arguments.pruner.split(",")
        reductions = [float(part) for part in arguments.reduction.split(",")]
        print(table(model, inputs, names, reductions, arguments.new_tokens, arguments.repeats))
    except FitPruneError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
