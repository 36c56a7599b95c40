"""The embedded model's tokenizer: one token a word, one a fixed phrase, one a character for everything else.

Words in pictures are not in the vocabulary, so they are spelled, and decoding joins the characters again. A space before a
word is part of its token, as in SentencePiece.
"""

from __future__ import annotations

import re
import string

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from harness.scenes.prompts import ASSISTANT, IMAGE, LETTER_ANSWER, SHORT_ANSWER, USER
from harness.scenes.questions import DIRECTIONS, HINT, SIDES, plural
from harness.scenes.world import CELLS, COLORS, SHAPES

PAD, BOS, EOS, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
PHRASES = (
    *(SHORT_ANSWER, LETTER_ANSWER, USER.strip(), ASSISTANT),
    *("\nA.", "\nB.", "\nC.", "\nD.", "\nE.", "\n", "Context:", " " + HINT),
    *("Is there a", "Is there an", "How many", "Are there", "What color is the", "What shape is the", "What is"),
    *("What word is", "What number is", "Where is", "Is the word", "Is the", " are in the image", " in the image"),
    *(" of the image", " in the", " under", " the", ' "', '"', "?"),
    *(" " + words for words in (*SIDES.values(), *DIRECTIONS.values(), *CELLS, *COLORS, *SHAPES, *map(plural, SHAPES))),
    *(" object", " objects", " yes", " no", " A", " B", " C", " D", " E"),
)


def build() -> PreTrainedTokenizerFast:
    """The tokenizer, made anew from the phrases above."""
    special = [PAD, BOS, EOS, UNKNOWN, IMAGE]
    phrases = sorted((phrase.replace(" ", "▁") for phrase in PHRASES), key=len, reverse=True)
    characters = [
        character for character in string.ascii_letters + string.digits + string.punctuation if character not in phrases
    ]
    vocabulary = {token: index for index, token in enumerate([*special, *phrases, *characters])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Replace(" ", "▁")
    pattern = "|".join(re.escape(phrase) + (r"(?![A-Za-z])" if phrase[-1].isalpha() else "") for phrase in phrases) + r"|[^▁]"
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.Split(Regex("^▁+$"), "removed")]
    )
    backend.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
