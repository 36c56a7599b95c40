"""Text and images to the model's inputs, as the authors tokenise them."""

from collections.abc import Sequence
from typing import Any

from transformers import BatchFeature, ProcessorMixin
from transformers.processing_utils import ProcessingKwargs

from fitprune.errors import FitPruneError

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
# Vicuna v1: one system sentence, images before the question, </s> after each answer, no space after "ASSISTANT:".
CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}{{ '" + SYSTEM.replace("'", "\\'") + " ' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'USER: ' }}{% elif message['role'] == 'assistant' %}{{ 'ASSISTANT: ' }}{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{{ '</s>' if message['role'] == 'assistant' else ' ' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


class LlavaHrProcessor(ProcessorMixin):
    """Image processor and tokenizer in one; each `<image>` in a text becomes `image_seq_length` image tokens.

    The texts before and after an image are tokenised apart, as the authors do, and only the first keeps its BOS.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_seq_length: int = 1024,
        image_token: str = "<image>",
        chat_template: str | None = CHAT_TEMPLATE,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.image_seq_length = image_seq_length
        self.image_token = image_token
        if image_token not in tokenizer.get_vocab():
            raise FitPruneError(f"the tokenizer does not know the image token '{image_token}'; add it as a special token.")
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        videos: None = None,
        audio: None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """`input_ids`, `attention_mask` and `pixel_values` (images, 3, S, S); options as every transformers processor takes.

        Raises FitPruneError where texts and images do not match, and for truncation, which would cut image tokens.
        """
        kind: Any = ProcessingKwargs
        options = self._merge_kwargs(kind, tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        of_text = options["text_kwargs"]
        if of_text.get("truncation"):
            raise FitPruneError("LLaVA-HR's processor does not truncate: it would cut image tokens; shorten the text.")
        data: dict[str, Any] = {}
        if images is not None:
            data.update(self.image_processor(images, **options["images_kwargs"]))
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            marks, given = sum(one.count(self.image_token) for one in texts), len(data.get("pixel_values", ()))
            if marks != given:
                raise FitPruneError(f"the text has {marks} {self.image_token}, but {given} images were given.")
            special = of_text.get("add_special_tokens", True)
            padding = {
                name: of_text[name]
                for name in ("padding", "max_length", "pad_to_multiple_of", "padding_side")
                if name in of_text
            }
            rows = {"input_ids": [self._ids(one, special) for one in texts]}
            data.update(self.tokenizer.pad(rows, **{"padding": False, **padding}))
        return BatchFeature(data, tensor_type=of_text.get("return_tensors"))

    def _ids(self, text: str, special: bool) -> list[int]:
        first, *rest = self.tokenizer(text.split(self.image_token), add_special_tokens=special)["input_ids"]
        ids, bos = list(first), self.tokenizer.bos_token_id
        for chunk in rest:
            ids += [self.image_token_id] * self.image_seq_length
            ids += chunk[1:] if special and chunk[:1] == [bos] else chunk
        return ids
