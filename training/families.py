"""The families of embedded models by name; a new one is one entry."""

from __future__ import annotations

from training.family import Family
from training.llava import Llava
from training.llava_hr import LlavaHr
from training.llava_next import LlavaNext

FAMILIES: dict[str, Family] = {"llava": Llava(), "llava-next": LlavaNext(), "llava-hr": LlavaHr()}
