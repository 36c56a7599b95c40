"""Readers of the prompts of small models: every token id is a word."""

import functools

from tokenizers import Tokenizer
from tokenizers import models as token_models
from tokenizers import pre_tokenizers as splits
from transformers import PreTrainedTokenizerFast

from fitprune import Reader, give_reader


@functools.cache
def words(count):
    """A tokenizer of the words t2, t3, …, each its own id."""
    vocabulary = {"<pad>": 0, "<unk>": 1, **{f"t{word}": word for word in range(2, count)}}
    backend = Tokenizer(token_models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = splits.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>")


def read(model, tokenizer=None):
    """The model, with a reader of its prompts."""
    give_reader(model, Reader(tokenizer or words(model.get_input_embeddings().num_embeddings)))
    return model
