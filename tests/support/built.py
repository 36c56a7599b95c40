"""`built_once`: a model that many tests build is built once, and each of them gets a copy of its own."""

import copy
import functools
import io
import pickle

import torch

from fitprune import Reader


def built_once(build):
    """`build` as it was, and torch draws after it what it drew before; with the arguments of an earlier call it copies."""
    made = {}

    @functools.wraps(build)
    def built(*args, **options):
        key = repr((args, sorted(options.items())))
        if key not in made:
            made[key] = _Kept(build(*args, **options)), torch.get_rng_state()
        kept, draws = made[key]
        torch.set_rng_state(draws)
        return kept.copy()

    return built


class _Kept:
    """A model as bytes, its tensors beside them: `copy.deepcopy` takes five times as long, drawing weights ten times."""

    def __init__(self, model):
        file, places, self.beside = io.BytesIO(), {}, []
        pickler = pickle.Pickler(file)

        def place(part):
            if not isinstance(part, torch.Tensor | Reader):
                return None
            if id(part) not in places:
                places[id(part)] = len(self.beside)
                self.beside.append(part)
            return places[id(part)]

        pickler.persistent_id = place
        pickler.dump(model)
        self.modules = file.getvalue()

    def copy(self):
        """A model that shares no tensor with another."""
        beside, unpickler = copy.deepcopy(self.beside), pickle.Unpickler(io.BytesIO(self.modules))
        unpickler.persistent_load = lambda place: _own(beside[place])
        return unpickler.load()


def _own(part):
    return copy.copy(part) if isinstance(part, Reader) else part
