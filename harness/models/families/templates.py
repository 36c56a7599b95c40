"""Prompts of one user turn, for checkpoints that bring no chat template. Hub checkpoints of today bring theirs.

Each is the prompt that the model's authors evaluate with.
"""

# A turn of LLaVA-1.5's instruction tuning (Vicuna v1).
VICUNA = (
    "{% for message in messages %}{{ 'USER: ' if message['role'] == 'user' else 'ASSISTANT: ' }}"
    "{% for part in message['content'] %}"
    "{{ '<image>\n' if part['type'] == 'image' else part['text'] + ' ' }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

# LLaVA-NeXT's Vicuna checkpoints put a system sentence first.
VICUNA_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
    "polite answers to the human's questions. " + VICUNA
)

# LLaVA-HR's too, in Vicuna's own wording.
VICUNA_USER_SYSTEM = VICUNA_SYSTEM.replace("human", "user")

MISTRAL = (
    "{% for message in messages %}{% if message['role'] == 'user' %}[INST] "
    "{% for part in message['content'] %}{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %} [/INST]"
    "{% else %} {% for part in message['content'] %}{{ part['text'] }}{% endfor %}</s>{% endif %}{% endfor %}"
)

SMOLVLM = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}:"
    "{{ '' if message['content'][0]['type'] == 'image' else ' ' }}"
    "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)

GEMMA = (
    "<bos>{% for message in messages %}<start_of_turn>{{ 'user' if message['role'] == 'user' else 'model' }}\n"
    "{% for part in message['content'] %}"
    "{{ '<start_of_image>' if part['type'] == 'image' else part['text'] | trim }}"
    "{% endfor %}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def chatml(image: str, system: str = "") -> str:
    """Turns between <|im_start|> and <|im_end|>; an image is written as `image`."""
    opening = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    return (
        opening + "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{% for part in message['content'] %}"
        f"{{{{ '{image}' if part['type'] == 'image' else part['text'] }}}}"
        "{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
