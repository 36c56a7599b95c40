"""The prompts that lmms-eval's tasks make of a question, and the chat format around them.

These repeat what `doc_to_text` of lmms-eval 0.7.3 gives for gqa, vqav2_val, textvqa_val (with OCR tokens, too), pope, mme
and scienceqa_img; a test compares them with those functions.
"""

from harness.scenes.questions import Question

READ = "\nReference OCR token: "
SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
LETTER_ANSWER = "\nAnswer with the option's letter from the given choices directly."
USER, ASSISTANT, IMAGE = "USER: ", " ASSISTANT:", "<image>"


def prompt(question: Question) -> str:
    """The text that a task passes to the model."""
    if not question.choices:
        return question.text + (READ + ", ".join(question.read) if question.read else "") + SHORT_ANSWER
    context = f"Context: {question.hint}\n" if question.hint else ""
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip("ABCDE", question.choices, strict=False))
    return f"{context}{question.text}\n{options}{LETTER_ANSWER}"


def chat(text: str) -> str:
    """The text in the Vicuna-style format of the processor's chat template, up to where the answer begins."""
    return f"{USER}{IMAGE}\n{text}{ASSISTANT}"
