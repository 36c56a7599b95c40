"""Which serving engines have a method, and by which option: what was read in their code and documentation.

An engine has a method where it keeps the tokens that the method here keeps of one image, or of one video. No torch here:
listing is quick.
"""

READ = "2026-11"
"""When the engines' code and documentation were read."""

SERVED = {
    "cosine": ("vLLM", "--image-pruning-rate R --image-pruning-method cosine"),
    "dart-embeddings": ("TensorRT Edge-LLM", "--visualPrune --dartReductionRatio R"),
    "cdpruner-embeddings": ("OpenVINO GenAI", "GenerationConfig(pruning_ratio=P, relevance_weight=W)"),
    "evs": ("vLLM", "--video-pruning-rate R"),
    "vidcom2": ("vLLM", "--video-pruning-rate R --video-pruning-method vidcom2"),
}
"""Method -> engine, and its option."""

NOTE = (
    f"Servable in: the engines whose code keeps the same tokens of one image, or of one video, as read in {READ}; of vLLM, for "
    "images, that of the request for comments vllm#45098, open then. SGLang and TensorRT-LLM serve evs, too. No engine serves "
    "a method that prunes between decoder layers, or that asks the vision tower for its attention."
)


def servable_in(name: str) -> str:
    """The engine that serves the method of this name, or "none"; none serves several methods in sequence.

    "all" for what needs no engine's help: no pruning, and a smaller picture.
    """
    if name in ("dense", "downsample"):
        return "all"
    return SERVED.get(name, ("none", ""))[0]


def flags(names: list[str]) -> list[str]:
    """For each of the methods that an engine serves, a sentence with the option."""
    return [f"{name} in {SERVED[name][0]}: {SERVED[name][1]}." for name in names if name in SERVED]
