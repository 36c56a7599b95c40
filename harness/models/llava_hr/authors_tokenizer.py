"""The authors' tokenizer, with the image token added."""

import warnings
from pathlib import Path
from typing import Any

from transformers import LlamaTokenizer, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import AddedToken
from transformers.utils import is_protobuf_available, is_sentencepiece_available

from fitprune.errors import FitPruneError
from harness.models.json_files import read_json

IMAGE_TOKEN = "<image>"


def read_tokenizer(source: Path, place: int) -> Any:
    """The authors' tokenizer with `<image>` at id `place`, or None, with a warning, where there is none.

    tokenizer.json is taken as it is; tokenizer.model is Vicuna's, which transformers' LlamaTokenizer reads as the authors'
    slow tokenizer does. AutoTokenizer is of no use here: it goes by the authors' model type, which means another class now.
    """
    whole = (source / "tokenizer.json").is_file()
    if not whole and not (source / "tokenizer.model").is_file():
        warnings.warn(f"{source}: no tokenizer.json or tokenizer.model; no processor is written", stacklevel=3)
        return None
    if not whole and not (is_sentencepiece_available() and is_protobuf_available()):
        raise FitPruneError(f"{source}: its tokenizer.model is read with sentencepiece: pip install sentencepiece protobuf")
    options: dict[str, Any] = {"local_files_only": True, "padding_side": "left"}
    settings = source / "tokenizer_config.json"
    # The slow tokenizer puts a BOS first unless told otherwise, transformers' does so only where it is told to.
    bos = read_json(settings).get("add_bos_token", True) if settings.is_file() else True
    try:
        if whole:
            tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(source, **options)
        else:
            tokenizer = LlamaTokenizer.from_pretrained(source, add_bos_token=bos, **options)
    except Exception as error:  # a damaged file raises whatever its parser does
        raise FitPruneError(f"{source}: its tokenizer cannot be loaded: {' '.join(str(error).split())[:300]}") from None
    if IMAGE_TOKEN not in tokenizer.get_vocab():
        # A tokenizer may know fewer tokens than the embedding has rows; the ids between are filled with names never used.
        unused = [f"<unused{number}>" for number in range(len(tokenizer), place)]
        tokens = [AddedToken(token, special=True, normalized=False) for token in (*unused, IMAGE_TOKEN)]
        tokenizer.add_tokens(tokens, special_tokens=True)
    found = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if found != place:
        raise FitPruneError(f"{source}: its tokenizer gives {IMAGE_TOKEN} the id {found}; config.json's vocab_size is {place}")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer
