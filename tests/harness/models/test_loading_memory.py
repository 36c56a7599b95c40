"""Loading takes the memory of the weights once, whatever their dtype and number of files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from tests.support import warm
from tests.support.tiny_llava import processor

ROOT = Path(__file__).parents[3]
WIDE = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 5, "num_attention_heads": 8}

# The limit is on the data segment, which is anonymous memory: an allocation beyond it fails, however short-lived. It counts
# the mapped files too, whose pages are never written to: they are the page cache's, and the system takes them back at need.
LOAD = """
import resource, sys
from pathlib import Path
from harness.models.loading import load_model

folder, dtype, share, weights = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
load_model(sys.argv[5], device="cpu")  # imports, thread pools
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
held = int(status["VmData"].split()[0]) * 1024
mapped = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
resource.setrlimit(resource.RLIMIT_DATA, (held + mapped + int(share * weights), resource.RLIM_INFINITY))
loaded = load_model(folder, device="cpu", dtype=dtype)
total = sum(parameter.numel() * parameter.element_size() for parameter in loaded.model.parameters())
assert total == weights, (total, weights)
print("loaded")
"""


def save(folder, sizes, dtype, **options):
    vocabulary = len(processor().tokenizer)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            projection_dim=32,
        ),
        text_config=LlamaConfig(vocab_size=vocabulary, **sizes),
        image_token_index=4,
    )
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config).to(dtype)
    model.to_empty(device="cpu")  # which values its weights have is all the same
    model.save_pretrained(folder, **options)
    processor().save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    parts = tmp_path_factory.mktemp("half")
    small = tmp_path_factory.mktemp("small")
    parameters = save(parts, WIDE, torch.float16, max_shard_size="40MB")
    save(small, {**WIDE, "hidden_size": 32, "intermediate_size": 64}, torch.float16)
    assert len(list(parts.glob("model-*.safetensors"))) > 3
    return parts, small, parameters


def load(folders, dtype, bytes_each, share):
    folder, small, parameters = folders
    command = [warm.python(), "-c", LOAD, str(folder), dtype, str(share), str(parameters * bytes_each), str(small)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit on the data segment is Linux's")
@pytest.mark.parametrize(
    ("dtype", "bytes_each", "share"),
    [
        pytest.param("float32", 4, 1.1, id="converted while it is read"),
        pytest.param("float16", 2, 0.2, id="in the dtype of the files: mapped, not copied"),
    ],
)
def test_loading_takes_the_memory_of_the_weights_once(folders, dtype, bytes_each, share):
    done = load(folders, dtype, bytes_each, share)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "loaded"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit on the data segment is Linux's")
def test_the_limit_is_one(folders):
    """The check of the check: with less than the weights, loading fails."""
    assert load(folders, "float32", 4, 0.8).returncode != 0
