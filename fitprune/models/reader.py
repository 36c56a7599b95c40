"""`Reader`: reads the questions of a model's prompts back from their token ids, for methods that choose by what is asked."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fitprune.errors import UnsupportedModel
from fitprune.models.clip_text import ClipText
from fitprune.models.execution import execution_device
from fitprune.models.parts import model_parts, visual_mask

_NAME = "fitprune_reader"

# What Qwen3-VL's processor writes before each frame of a video.
_TIME = re.compile(r"<\d+\.\d seconds>")


@dataclass
class Reader:
    """What it takes to read a question.

    Attributes:
        tokenizer: the decoder's.
        before, after: what the chat template puts around a question, as the tokenizer decodes it, without special tokens.
        load_clip: gives CLIP's text tower, for methods that compare text and patches in CLIP's space; None where the model has
            none that fits.
    """

    tokenizer: Any
    before: str = ""
    after: str = ""
    load_clip: Callable[[], ClipText] | None = None
    _clip: ClipText | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Reader":
        return self  # a copy of a model is read alike

    def questions(self, ids: torch.Tensor, real: torch.Tensor) -> list[str]:
        """The question in each row of `ids` (batch, T), of the tokens that are `real`, bool (batch, T): text, and no image."""
        texts = []
        for row, own in torch.stack([ids, real.to(ids.dtype)], 1).cpu().numpy():
            text = _TIME.sub("", self.tokenizer.decode(row[own > 0].tolist(), skip_special_tokens=True)).strip()
            texts.append(text.removeprefix(self.before).removesuffix(self.after).strip())
        return texts

    def embeddings(self, model: Any, words: Sequence[Sequence[str]]) -> list[torch.Tensor]:
        """The decoder's input embeddings (m, hidden_size) of the tokens of each list of words, without a BOS token."""
        table = model.get_input_embeddings()
        device, found = execution_device(table), []
        for own in words:
            ids = self.tokenizer(list(own), is_split_into_words=True, add_special_tokens=False)["input_ids"] if own else []
            found.append(table(torch.tensor(ids, dtype=torch.long, device=device)))
        return found

    def clip(self) -> ClipText | None:
        """CLIP's text tower, loaded when it is first asked for."""
        if self._clip is None and self.load_clip is not None:
            self._clip = self.load_clip()
        return self._clip


def give_reader(model: nn.Module, reader: Reader) -> None:
    """Let methods that choose by the question read this model's prompts."""
    setattr(model_parts(model).parent, _NAME, reader)


def reader_of(parent: Any) -> Reader | None:
    """The reader of the model whose `ModelParts.parent` this is."""
    return getattr(parent, _NAME, None)


def require_reader(model: nn.Module, method: str) -> Reader:
    """The model's reader. Raises UnsupportedModel where it has none."""
    reader = reader_of(model_parts(model).parent)
    if reader is None:
        raise UnsupportedModel(
            f"{method} chooses by the words of the question, and nothing here reads them; load the model with "
            "harness.models.load_model, or give it a reader: fitprune.give_reader(model, fitprune.Reader(tokenizer))."
        )
    return reader


def questions_of(parts: Any, prompt: Mapping[str, Any]) -> list[str]:
    """The question of each sample of a prompt, the arguments of a forward of the model with these `ModelParts`.

    Raises:
        UnsupportedModel: the prompt was given as embeddings, or the model has no reader.
    """
    ids, mask, reader = prompt.get("input_ids"), prompt.get("attention_mask"), reader_of(parts.parent)
    if ids is None or reader is None:
        raise UnsupportedModel(
            "this method chooses by the words of the question, which embeddings do not tell; give the prompt as input_ids."
        )
    text = ~visual_mask(parts, {"input_ids": ids})
    return reader.questions(ids, text if mask is None else text & mask.bool())


def embeddings_of(parts: Any, words: Sequence[Sequence[str]]) -> list[torch.Tensor]:
    """`Reader.embeddings` of a model that has a reader."""
    reader = reader_of(parts.parent)
    assert reader is not None
    return reader.embeddings(parts.parent, words)
