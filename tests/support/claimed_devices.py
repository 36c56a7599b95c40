"""Devices that are not there: tensors on the CPU that claim a device each, and refuse to meet a tensor of another.

What torch demands of real devices is demanded of these. Two tensors of one operation must agree, but for a CPU tensor without
dimensions. A factory makes its tensors on the CPU unless it is told a device. `to` copies from one device to another, and only
the CPU's tensors become NumPy arrays. A view is where its storage is. One thing more is demanded: torch takes indices on the
CPU for any tensor, and waits while it uploads them; here they are refused but from transformers, whose towers have some.
"""

import sys

import torch
from torch._C import _functorch as functorch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")
# What may bring tensors of two devices together, or looks at one alone.
MEETING = {"copy_", "__set__", "__get__"}


class ClaimedDevices(TorchFunctionMode):
    """Inside, tensors have claimed devices; those that came from outside are on the CPU.

    Attributes:
        uploads: the modules of this project that brought a tensor from the CPU to another device.
    """

    def __init__(self):
        super().__init__()
        self._claims = {}
        self.uploads = []

    def of(self, tensor):
        """The device that a tensor claims."""
        if tensor.is_meta:
            return torch.device("meta")
        claim = self._claims.get(_storage(tensor)._cdata)
        return CPU if claim is None else claim[1]

    def claim(self, tensor, device):
        """Let a tensor's storage be on `device`."""
        if not tensor.is_meta:
            storage = _storage(tensor)
            # The reference keeps the storage's address from being used again, but not its memory.
            self._claims[storage._cdata] = (StorageWeakRef(storage), device)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func is torch.device:
            return _device(*args)
        if func == torch.Tensor.device.__get__:
            return self.of(args[0])
        if name in ("numpy", "__array__") and self.of(args[0]) != CPU:
            raise TypeError(f"can't convert {self.of(args[0])} device type tensor to numpy")
        if name in ("to", "cpu"):
            return self._moved(func, name, args, kwargs)
        wanted = kwargs.get("device")
        if wanted is not None:
            wanted = _device(wanted)
            kwargs["device"] = CPU if wanted.type != "meta" else wanted
        if name in MEETING or (name == "__getitem__" and "transformers" in sys._getframe(1).f_globals["__name__"]):
            here = self.of(args[0])
        else:
            here = wanted or self._common(name or func, [*_tensors(args), *_tensors(kwargs)])
        output = func(*args, **kwargs)
        for tensor in _tensors(output):
            known = tensor.is_meta or _storage(tensor)._cdata in self._claims
            if here != CPU and (not known or wanted is not None):
                self.claim(tensor, here)
        return output

    def _moved(self, func, name, args, kwargs):
        """`Tensor.to` and `Tensor.cpu`."""
        source, here = args[0], self.of(args[0])
        others = [arg for arg in args[1:] if isinstance(arg, torch.Tensor)]
        asked = [arg for arg in (*args[1:], kwargs.get("device")) if _is_device(arg)]
        there = self.of(others[0]) if others else CPU if name == "cpu" else _device(asked[0]) if asked else here
        if there.type == "meta" or source.is_meta:
            return func(*args, **kwargs)
        kwargs.pop("device", None)
        output = func(source, *(arg for arg in args[1:] if not _is_device(arg)), **kwargs)
        if there != here:
            if here == CPU and sys._getframe(2).f_globals["__name__"].partition(".")[0] in ("fitprune", "baselines"):
                self.uploads.append(sys._getframe(2).f_globals["__name__"])
            if _storage(output)._cdata == _storage(source)._cdata:
                output = output.detach().clone()
            self.claim(output, there)
        elif output is not source:
            self.claim(output, here)
        return output

    def _common(self, name, tensors):
        """The device on which an operation works."""
        devices = {self.of(tensor) for tensor in tensors if tensor.ndim or self.of(tensor) != CPU}
        if len(devices) > 1:
            found = " and ".join(sorted(map(str, devices)))
            raise RuntimeError(f"Expected all tensors to be on the same device, but {name} met {found}")
        return next(iter(devices), CPU)


def _storage(tensor):
    """A tensor's storage; inside `vmap`, that of the whole tensor."""
    while functorch.is_batchedtensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor.untyped_storage()


def _is_device(value):
    return isinstance(value, torch.device | str) or (isinstance(value, int) and not isinstance(value, bool))


def _device(value, *number):
    return torch.device("cuda", value) if isinstance(value, int) else torch.device(value, *number)


def _tensors(value):
    """All tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _tensors(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _tensors(entry)


def spread(model, devices, placement, main="cuda:0"):
    """Put a model's modules on claimed devices, and let accelerate's hooks bring each of them its arguments.

    Args:
        devices: the `ClaimedDevices` that are active.
        placement: name of a module → device. What is inside such a module has no hook of its own.
        main: the device of everything else, and of what the model is given and gives.
    """
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    for tensor in [*model.parameters(), *model.buffers()]:
        devices.claim(tensor, torch.device(main))
    for part, device in placement.items():
        for tensor in [*model.get_submodule(part).parameters(), *model.get_submodule(part).buffers()]:
            devices.claim(tensor, torch.device(device))
    for part, module in model.named_modules():
        inside = any(part.startswith(f"{name}.") for name in placement)
        if part in placement or not part or (next(module.parameters(recurse=False), None) is not None and not inside):
            device = torch.device(placement.get(part, main))
            add_hook_to_module(module, AlignDevicesHook(device, io_same_device=not part, skip_keys="past_key_values"))
    return model


def decoder_over(layers, *devices, decoder="model.language_model"):
    """The placement of a decoder by its name: layers, norm and head on different devices, the layers split evenly."""
    names = [f"{decoder}.layers.{layer}" for layer in range(layers)]
    split = {name: devices[number * len(devices) // layers] for number, name in enumerate(names)}
    return {**split, f"{decoder}.norm": "cuda:6", "lm_head": "cuda:7"}
