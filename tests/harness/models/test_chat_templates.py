"""Which chat template a checkpoint is asked with: its processor's, its tokenizer's, or its family's."""

import json
import warnings

import pytest

from harness.models.chat import chat
from harness.models.loading import load_model
from tests.support.tiny_llava import save_tiny

OWN = (
    "{% for m in messages %}<s>{{ m['role'] }} {% for p in m['content'] %}"
    "{{ '<image> ' if p['type'] == 'image' else p['text'] }}{% endfor %}{% endfor %} reply:"
)
TEXT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}"


def asked(folder, template):
    """The prompt of a checkpoint that keeps `template` with its tokenizer and none with its processor; what was warned of."""
    save_tiny(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    for name, kept in (("processor_config.json", None), ("tokenizer_config.json", template)):
        settings = json.loads((folder / name).read_text()) | {"chat_template": kept}
        (folder / name).write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        prompt = chat(load_model(str(folder), "cpu").processor, "what color ?", 1)
    return prompt, [str(warning.message) for warning in said if "template" in str(warning.message)]


def test_a_tuned_checkpoint_is_asked_by_the_template_with_its_tokenizer(tmp_path):
    assert asked(tmp_path / "m", OWN) == ("<s>user <image> what color ? reply:", [])


@pytest.mark.parametrize("template", [TEXT, "{{ raise_exception('no list') }}", "{% broken"])
def test_a_language_models_template_is_left_out_with_a_warning(tmp_path, template):
    prompt, said = asked(tmp_path / "m", template)
    assert prompt == asked(tmp_path / "plain", None)[0]
    assert prompt.startswith("USER: <image>")
    assert said == ["the tokenizer's chat template has no place for an image; the model family's is taken"]


def test_without_any_template_the_familys_is_taken(tmp_path):
    assert asked(tmp_path / "m", None)[1] == []
