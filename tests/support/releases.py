"""What a test asks of transformers that releases name differently: found by looking at signatures and attributes."""

import inspect


def with_cache(model, cache):
    """The keyword arguments that hand a cache to this model's forward: `cache` since 5.24, `past_key_values` before."""
    # The class's own forward, since a context may stand in place of the instance's.
    name = "cache" if "cache" in inspect.signature(type(model).forward).parameters else "past_key_values"
    return {name: cache}


def cache_of(outputs):
    """The cache that a forward returned, or None."""
    return outputs.cache if hasattr(outputs, "cache") else outputs.past_key_values


def image_features_of(outputs):
    """The projected visual tokens that a forward of a LLaVA handed back."""
    handed = getattr(outputs, "image_outputs", None)
    return outputs.image_hidden_states if handed is None else handed.pooler_output
