"""For tests: a random LLaVA of 16 visual tokens, one that answers from a table, small data in the suites' layout."""

import functools
import io
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from harness.models.chat import tokenizer_beside
from harness.models.families.templates import VICUNA
from harness.models.loading import LoadedModel
from harness.models.spec import ModelSpec

VOCABULARY = (
    "<unk> <pad> <s> </s> <image> USER : ASSISTANT yes no . , ? Answer the question using a single word or phrase with "
    "option s letter from given choices directly Is there red blue green square circle left A B C D what color shape "
    "written 0 1 2 3 4 5 6 7 8 9 stop ten eleven Context ' existence code_reasoning"
)
WORDS = VOCABULARY.split()


def processor() -> LlavaProcessor:
    """Word-level, 32x32 images, 16 visual tokens, a chat template."""
    vocabulary = {word: place for place, word in enumerate(dict.fromkeys(WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<image>"],
    )
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer=fast,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=VICUNA,
    )


def config() -> LlavaConfig:
    size = len(dict.fromkeys(WORDS))
    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            projection_dim=32,
        ),
        text_config=LlamaConfig(
            vocab_size=size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=512,
            initializer_range=0.3,
            pad_token_id=WORDS.index("<pad>"),
            bos_token_id=WORDS.index("<s>"),
            eos_token_id=WORDS.index("</s>"),
        ),
        image_token_index=WORDS.index("<image>"),
    )


def save_tiny(folder: Path) -> Path:
    """A random LLaVA with its processor, saved as people save theirs. A quarter of its words end its answers, soon."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config())
    model.generation_config.eos_token_id = [WORDS.index("</s>"), *range(7, model.config.text_config.vocab_size, 4)]
    model.save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


class ScriptedModel:
    """Answers from a table: the first key that is in the decoded prompt decides."""

    def __init__(self, answers: dict[str, str], tokenizer: PreTrainedTokenizerFast) -> None:
        self.answers, self.tokenizer = answers, tokenizer
        self.config = config()
        self.generation_config = SimpleNamespace(eos_token_id=tokenizer.eos_token_id)
        self.dtype = torch.float32
        self.batches: list[dict[str, torch.Tensor]] = []

    def generate(self, input_ids: torch.Tensor, **rest: object) -> torch.Tensor:
        self.batches.append({"input_ids": input_ids, **rest})
        rows = []
        for row in input_ids:
            prompt = self.tokenizer.decode(row, skip_special_tokens=True)
            answer = next(answer for key, answer in self.answers.items() if key in prompt)
            rows.append([*self.tokenizer(answer, add_special_tokens=False).input_ids, self.tokenizer.eos_token_id])
        longest = max(map(len, rows))
        padded = [row + [self.tokenizer.pad_token_id] * (longest - len(row)) for row in rows]
        return torch.cat([input_ids, torch.tensor(padded)], dim=1)


def scripted(answers: dict[str, str]) -> LoadedModel:
    made = processor()
    made.tokenizer.padding_side = "left"
    model = ScriptedModel(answers, tokenizer_beside(made.tokenizer))  # a thread encodes with the processor's
    return LoadedModel("scripted", "0", model, made, ModelSpec("scripted", "-", kind="folder"), "cpu")


@functools.cache
def picture(seed: int) -> dict:
    """An image as parquet files hold it; different for different seeds."""
    file = io.BytesIO()
    Image.frombytes("RGB", (32, 32), bytes((seed * 37 + place * (seed % 7 + 1)) % 256 for place in range(32 * 32 * 3))).save(
        file, "PNG"
    )
    return {"bytes": file.getvalue(), "path": None}


def write(folder: Path, place: str, rows: list[dict], **types: pa.DataType) -> Path:
    """Rows as `<folder>/<place>.parquet`."""
    path = folder / f"{place}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.Table.from_pylist(rows).schema
    for name, kind in types.items():
        schema = schema.set(schema.get_field_index(name), pa.field(name, kind))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return path


def people(*answers: str) -> list[dict]:
    """VQAv2's ten annotators, of whom the last answer fills up the number."""
    filled = [*answers, *[answers[-1]] * (10 - len(answers))]
    return [{"answer": answer, "answer_confidence": "yes", "answer_id": place + 1} for place, answer in enumerate(filled)]


def write_all(folder: Path) -> None:
    """A random model `m`, and data `d` of all suites with as many calibration samples as a fit takes."""
    save_tiny(folder / "m")
    write_suites(folder / "d")
    samples = [{"image": picture(100 + n % 9), "question": f"what color {n % 10} ?"} for n in range(128)]
    write(folder / "d", "calibration", samples)


def write_suites(folder: Path) -> Path:
    """Four to twelve questions a suite."""
    gqa = [
        {
            "id": f"q{n}",
            "imageId": f"i{n // 2}",
            "question": f"what color {n} ?",
            "answer": "red",
            "fullAnswer": "It is red.",
        }
        for n in range(6)
    ]
    write(folder, "gqa/testdev_balanced_instructions/testdev", gqa)
    write(folder, "gqa/testdev_balanced_images/testdev", [{"id": f"i{n}", "image": picture(n)} for n in range(3)])
    vqa = [
        {
            "question": f"what shape {n} ?",
            "question_id": n,
            "image_id": n // 2,
            "image": picture(n // 2),
            "answers": people("circle", "circle", "square"),
        }
        for n in range(4)
    ]
    write(folder, "vqav2_val/default/validation", vqa)
    text = [
        {
            "question": f"what is written {n} ?",
            "question_id": n,
            "image": picture(n),
            "answers": ["stop", "stop", *["left"] * 8],
        }
        for n in range(4)
    ]
    write(folder, "textvqa_val/default/validation", text)
    pope = [
        {
            "question": f"Is there a red square {n} ?",
            "question_id": str(n),
            "answer": "yes" if n % 2 else "no",
            "image_source": f"s{n // 2 % 2}",
            "category": ("adversarial", "popular", "random")[n // 4],
            "image": picture(n // 2 % 2),
        }
        for n in range(12)
    ]
    write(folder, "pope/default/test", pope)
    mme = [
        {
            "question_id": f"{category}/{pair}.png",
            "category": category,
            "question": f"Is there a {colour} {category} {pair} ? Please answer yes or no.",
            "answer": answer,
            "image": picture(pair),
        }
        for category in ("existence", "color", "code_reasoning")
        for pair in range(2)
        for colour, answer in (("red", "Yes"), ("blue", "No"))
    ]
    write(folder, "mme/default/test", mme)
    science = [
        {
            "question": f"what color {n} ?",
            "choices": ["red", "blue", "green"],
            "answer": n % 3,
            "hint": "",
            "image": picture(n),
        }
        for n in range(4)
    ]
    write(folder, "scienceqa_img/ScienceQA-IMG/test", science, answer=pa.int8())
    return folder
