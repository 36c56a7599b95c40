"""`Waits`: how often the host waits for a device, and how many operations it launches, counted on a CPU."""

import contextlib
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from baselines.shared.choosing import greedy, rounds
from fitprune.fitting.tensor_store import TensorStore
from fitprune.interface import attention

# Operations whose result, or its shape, the host must know.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "nonzero_static", "unique", "_unique2", "unique_dim"}
# Functions that are kernels on a GPU, where they are looked up.
KERNELS = [
    (attention, "head_max_columns"),
    (greedy, "farthest"),
    (greedy, "most_covering"),
    (greedy, "spanning"),
    (rounds, "thinned"),
]
VIEWS = {
    "view", "_unsafe_view", "slice", "expand", "t", "transpose", "unsqueeze", "squeeze", "select", "permute", "detach", "alias",
    "split", "reshape", "as_strided", "_reshape_alias",
}  # fmt: skip


class Waits(TorchDispatchMode):
    """Inside, `waits` counts what a GPU's host would have to wait for, `operations` what it would launch.

    A wait is `item()`, `int()` and `bool()` of a tensor, `tolist()`, `cpu()`, `nonzero` and its kin, and a boolean mask as an
    index. What runs as kernels of Triton on a GPU, and in torch on a CPU, is one operation and no wait.
    """

    def __init__(self, copies=True):
        """Without `copies`, `cpu()` counts for nothing."""
        super().__init__()
        self._waiting_methods = ("tolist", "cpu") if copies else ("tolist",)
        self.waits = self.operations = 0

    def __enter__(self):
        self._undo = contextlib.ExitStack()
        for name in self._waiting_methods:
            counted = self._waiting(getattr(torch.Tensor, name))
            self._undo.enter_context(mock.patch.object(torch.Tensor, name, counted))
        for module, name in KERNELS:
            self._undo.enter_context(mock.patch.object(module, name, self._at_once(getattr(module, name))))
        return super().__enter__()

    def __exit__(self, *error):
        self._undo.close()
        return super().__exit__(*error)

    @contextlib.contextmanager
    def on_the_host(self, owner, name):
        """Inside, what a method does counts for nothing: it is given nothing of a device."""
        method = getattr(owner, name)

        def uncounted(*arguments):
            before = self.waits
            try:
                return method(*arguments)
            finally:
                self.waits = before

        with mock.patch.object(owner, name, uncounted):
            yield

    def _waiting(self, function):
        def wrapped(*args):
            self.waits += 1
            return function(*args)

        return wrapped

    def _at_once(self, function):
        def wrapped(*args, **kwargs):
            waits, operations = self.waits, self.operations
            result = function(*args, **kwargs)
            self.waits, self.operations = waits, operations + 1
            return result

        return wrapped

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masked = name.startswith("index") and len(args) > 1 and isinstance(args[1], list | tuple)
        masked = masked and any(isinstance(part, torch.Tensor) and part.dtype == torch.bool for part in args[1])
        self.waits += name in WAITING or masked
        self.operations += name not in VIEWS
        return func(*args, **(kwargs or {}))


class Largest(TorchDispatchMode):
    """Inside, `numel` is that of the largest tensor which an operation has made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(part.numel() for part in tree_leaves(made) if isinstance(part, torch.Tensor))])
        return made


def of_prefill(model, inputs, pruner=None):
    """(waits, operations) of a prefill. The trace is not read."""
    with torch.no_grad(), Waits() as counted, contextlib.nullcontext() if pruner is None else pruner(model):
        model(**inputs, use_cache=True)
    return counted.waits, counted.operations


def of_decoding(model, inputs, pruner=None, tokens=3):
    """(waits, operations) of a decoded token after a prefill."""
    with torch.no_grad(), contextlib.nullcontext() if pruner is None else pruner(model):
        output, mask = model(**inputs, use_cache=True), inputs["attention_mask"]
        with Waits() as counted:
            for _ in range(tokens):
                mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
                ids = output.logits[:, -1:].argmax(-1)
                output = model(input_ids=ids, attention_mask=mask, past_key_values=output.past_key_values, use_cache=True)
    return counted.waits / tokens, counted.operations / tokens


def of_fit(model, work):
    """(waits, passes) of `work`, a fit on a LLaVA; a pass is a forward that enters the decoder's first layer.

    A fit enters the layer, but computes it once; the published procedure calls its parts.

    Copies to disk, a few for each batch, are not seen on a CPU, so that no copy counts, nor that of the prompt's layout.
    """
    first, entered = model.model.language_model.layers[0], {"layer": 0, "norm": 0}
    hooks = [
        module.register_forward_pre_hook(lambda *_, part=part: entered.update({part: entered[part] + 1}))
        for part, module in (("layer", first), ("norm", first.input_layernorm))
    ]
    try:
        # Statistics are read from disk.
        with Waits(copies=False) as counted, counted.on_the_host(TensorStore, "get"):
            work()
    finally:
        for hook in hooks:
            hook.remove()
    return counted.waits, max(entered.values())
