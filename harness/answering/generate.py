"""Greedy generation of a batch, and the texts that it comes to."""

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from baselines import Dense
from fitprune import Pruner
from harness.answering.batching import Finished, Prepared, Record, keys_of
from harness.answering.lean import lean
from harness.cost.flops import prompt_tokens
from harness.cost.tally import batch_cost
from harness.models.chat import tokenizer_beside
from harness.models.loading import LoadedModel


@torch.inference_mode()
def generate(loaded: LoadedModel, pruner: Pruner | None, batch: Prepared, counting: bool) -> Finished:
    """Greedy answers to a batch, under `pruner`; with what they cost where `counting`."""
    started = time.perf_counter()
    inputs, tokenizer = batch.inputs, tokenizer_beside(loaded.processor.tokenizer)
    model: Any = loaded.model
    options = {
        **inputs,
        "max_new_tokens": batch.requests[0].max_new_tokens,
        "do_sample": False,
        "num_beams": 1,
        "temperature": None,
        "top_p": None,
        "top_k": None,
        "use_cache": True,
        "pad_token_id": tokenizer.pad_token_id,
        "logits_processor": LogitsProcessorList([first := _First()]),
    }
    with lean(model, pruner) as own, pruner(model) if pruner else contextlib.nullcontext() as trace:
        try:
            sequences = model.generate(**options, **own)
        except ValueError:
            if pruner is None:
                # A prompt that was cut off: under a pruner, also one that prunes nothing, it is named with its numbers.
                with Dense()(model):
                    model.generate(**options)
            raise
    fresh = sequences[:, inputs["input_ids"].shape[1] :]
    new_tokens = lengths_of(fresh, _ends(model))
    text, visual = prompt_tokens(model.config, inputs)
    lengths, visual_tokens = (text + visual).tolist(), visual.tolist()
    texts = []
    for row, request in enumerate(batch.requests):
        answer = tokenizer.decode(fresh[row, : new_tokens[row]], skip_special_tokens=True)
        for stop in request.until:
            answer = answer.split(stop)[0]
        texts.append(answer.strip())
    columns = (batch.images, lengths, visual_tokens, new_tokens, *first.certainty(len(texts)))
    records = [Record(*parts) for parts in zip(*columns, strict=True)]
    cost = batch_cost(model.config, inputs, trace, new_tokens) if counting else None
    seconds = time.perf_counter() - started
    return Finished(keys_of(batch.requests), texts, records, cost, seconds, inputs, trace)


class _First(LogitsProcessor):
    """Keeps what a generation's first step says of each row's next token, and changes nothing."""

    def __init__(self) -> None:
        self._scores: torch.Tensor | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if self._scores is None:
            self._scores = scores.clone()
        return scores

    def certainty(self, rows: int) -> tuple[Sequence[float | None], Sequence[float | None]]:
        """Per row, the margin between the two likeliest tokens and the entropy, in nats; None of a model that generates in
        a way of its own and asks nobody.
        """
        if self._scores is None:
            return [None] * rows, [None] * rows
        logs = self._scores.float().log_softmax(-1)
        two = logs.topk(2).values
        entropy = -(logs.exp() * logs.clamp(min=-1e4)).sum(-1)
        return (two[:, 0] - two[:, 1]).clamp(max=1e4).tolist(), entropy.tolist()


def _ends(model: Any) -> list[int]:
    ends = model.generation_config.eos_token_id
    return ends if isinstance(ends, list) else [] if ends is None else [ends]


def lengths_of(tokens: torch.Tensor, ends: list[int]) -> list[int]:
    """Per row of (batch, new): tokens up to and including the first end token."""
    ended = torch.isin(tokens, torch.tensor(ends, dtype=tokens.dtype, device=tokens.device))
    first = torch.where(ended.any(1), ended.int().argmax(1) + 1, tokens.shape[1])
    return first.tolist()
