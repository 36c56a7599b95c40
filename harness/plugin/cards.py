"""How many workers the cards have room for."""

from collections.abc import Iterable
from typing import NamedTuple

from harness.models.devices import AUTO, cuda_devices
from harness.models.gpu_memory import worker_bytes


class Dealt(NamedTuple):
    """The device of each worker that starts, and, where fewer start than were asked for, a line that says why."""

    devices: tuple[str, ...]
    note: str = ""


def deal(workers: int, device: str | None, models: Iterable[str], batch_size: int) -> Dealt | None:
    """Deal devices out to workers, as many as they have memory for: each worker loads a model of its own, one at a time.

    Args:
        device: as it was asked for; None takes all cards by turn.

    Returns None where no card is in question, or nobody knows what a model needs. At least one worker starts.
    """
    if device == "cpu":
        return None
    cards = cuda_devices()
    if not cards:
        return None
    import torch

    needs = {model: worker_bytes(model, batch_size) for model in models}
    model, need = max(needs.items(), key=lambda entry: entry[1] or 0)
    if need is None:
        return None
    asked = range(cards) if device in (None, AUTO) else [torch.device(str(device)).index or 0]
    free = {f"cuda:{card}": torch.cuda.mem_get_info(card)[0] for card in asked}
    rooms = {AUTO: sum(free.values()) // need} if device == AUTO else {card: bytes // need for card, bytes in free.items()}
    rooms = rooms if any(rooms.values()) else {max(free, key=free.__getitem__) if device != AUTO else AUTO: 1}
    turns = [card for turn in range(max(rooms.values())) for card, room in rooms.items() if turn < room]
    devices = tuple(turns[:workers])
    if len(devices) == workers:
        return Dealt(devices)
    there = ", ".join(f"{bytes / 1e9:.1f} GB free on {card}" for card, bytes in free.items())
    return Dealt(
        devices,
        f"{len(devices)} of {workers} workers start: {model} takes some {need / 1e9:.1f} GB for batches of {batch_size}, "
        f"and there are {there}",
    )
