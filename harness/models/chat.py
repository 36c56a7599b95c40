"""A question in the processor's chat template, and a reader that finds it there again."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fitprune.models.reader import Reader

_ASKED = "\0"


def question_reader(processor: Any) -> "Reader":
    """A reader of the questions in prompts that `encode` makes."""
    from fitprune.models.reader import Reader

    tokenizer = processor.tokenizer
    around = chat(processor, _ASKED, 0).split(_ASKED)
    before, after = (
        tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"], skip_special_tokens=True).strip()
        for text in (around[0], around[-1])
    )
    return Reader(tokenizer, before, after)


def chat(processor: Any, question: str, images: int) -> str:
    """The prompt for a question about so many images."""
    marker = getattr(processor, "image_token", None)
    # An image token in the question's own text would stand for an image that is not there.
    text = question.replace(marker, "").strip() if marker and marker in question else question
    content = [{"type": "image"}] * images + [{"type": "text", "text": text}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)
