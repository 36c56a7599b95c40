"""Readers of the prompts of small models, where every token id is a word, with a small random CLIP for their towers."""

import functools

import torch
from tokenizers import Tokenizer
from tokenizers import models as token_models
from tokenizers import pre_tokenizers as splits
from tokenizers.processors import TemplateProcessing
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from fitprune import Reader, UnsupportedModel, give_reader
from fitprune.models.clip_text import ClipText
from fitprune.models.sizes import tower_sizes

LONGEST = 12


@functools.cache
def words(count):
    """A tokenizer of the words t2, t3, …, each its own id."""
    return _tokenizer({"<pad>": 0, "<unk>": 1, **{f"t{word}": word for word in range(2, count)}})


def _tokenizer(vocabulary, **special):
    backend = Tokenizer(token_models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = splits.WhitespaceSplit()
    if special:
        ends = [(token, vocabulary[token]) for token in special.values()]
        backend.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", **special)


@functools.cache
def clip(width):
    """A random CLIP for patches so wide, that takes texts of up to `LONGEST` tokens, and its tokenizer."""
    named = ["<pad>", "<s>", "</s>", "<unk>", *(f"{letter}{word}" for letter in "tw" for word in range(64))]
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {
        "vocab_size": len(named),
        "max_position_embeddings": LONGEST,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    vision = {**small, "hidden_size": width, "image_size": 8, "patch_size": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = CLIPModel(CLIPConfig(text_config={**small, **text}, vision_config=vision, projection_dim=8)).eval()
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "embedding" not in name:
                weight.data.normal_(0, 1.5 / weight.shape[1] ** 0.5)
            elif "token_embedding" in name:
                weight.data.normal_(0, 1)
    tokenizer = _tokenizer({word: index for index, word in enumerate(named)}, bos_token="<s>", eos_token="</s>")
    return model, tokenizer


def _clip_text(width):
    return ClipText(*clip(width))


def read(model, tokenizer=None):
    """The model, with a reader of its prompts, and a CLIP where its tower's form is known."""
    try:
        width = tower_sizes(model.config).width
    except UnsupportedModel:
        width = None
    load = None if width is None else functools.partial(_clip_text, width)
    give_reader(model, Reader(tokenizer or words(model.get_input_embeddings().num_embeddings), load_clip=load))
    return model
