"""A question in the processor's chat template; a reader that finds it there again, and compares it with patches."""

import copy
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fitprune.errors import FitPruneError
from harness.models.spec import ModelSpec

if TYPE_CHECKING:
    import torch

    from fitprune.models.clip_text import ClipText
    from fitprune.models.reader import Reader

_ASKED = "\0"
_beside: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def tokenizer_beside(tokenizer: Any) -> Any:
    """A copy of a processor's tokenizer, for the thread in which the model runs while another one prepares prompts: padding is
    a setting of a tokenizer, which each call changes, so that two threads cannot use one.
    """
    if tokenizer not in _beside:
        _beside[tokenizer] = copy.deepcopy(tokenizer)
    return _beside[tokenizer]


def question_reader(processor: Any, load_clip: "Callable[[], ClipText] | None" = None) -> "Reader":
    """A reader of the questions in prompts that `encode` makes; see `Reader.load_clip`."""
    from fitprune.models.reader import Reader

    tokenizer = tokenizer_beside(processor.tokenizer)
    try:
        around = chat(processor, _ASKED, 0).split(_ASKED)
    except Exception:  # a template is a program of its author's: it may fail in any way, here for want of an image
        around = []
    before, after = (
        tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"], skip_special_tokens=True).strip()
        for text in (around if len(around) == 2 else ("", ""))
    )
    return Reader(tokenizer, before, after, load_clip)


def text_tower(spec: ModelSpec, dtype: "torch.dtype", device: str) -> "Callable[[], ClipText] | None":
    """What loads the text tower of the CLIP model that a model's entry names; None where it names none.

    It raises a FitPruneError, which says what to download, where that model is not on this machine.
    """
    if spec.text_tower is None:
        return None
    return partial(_text_tower, spec.name, *spec.text_tower, dtype, device)  # a model with it can be pickled


def _text_tower(name: str, source: str, revision: str, dtype: "torch.dtype", device: str) -> "ClipText":
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    from fitprune.models.clip_text import ClipText

    try:
        folder = source if Path(source).is_dir() else snapshot_download(source, revision=revision, local_files_only=True)
    except LocalEntryNotFoundError:
        raise FitPruneError(
            f"CLIP's text tower for '{name}' is not on this machine: download it with "
            f"'hf download {source} --revision {revision}', or set HF_HOME to where it is"
        ) from None
    return ClipText.from_folder(Path(folder), dtype, device)


def chat(processor: Any, question: str, images: int, videos: int = 0) -> str:
    """The prompt for a question about so many images and videos."""
    # An image token in the question's own text would stand for an image that is not there.
    for marker in filter(None, (getattr(processor, f"{kind}_token", None) for kind in ("image", "video"))):
        question = question.replace(marker, "").strip() if marker in question else question
    content = [{"type": "image"}] * images + [{"type": "video"}] * videos + [{"type": "text", "text": question}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)
