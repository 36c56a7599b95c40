"""The families of embedded models by name; a new one is one entry."""

from __future__ import annotations

from harness.embedded.family import Family
from harness.embedded.llava import Llava
from harness.embedded.llava_hr import LlavaHr
from harness.embedded.llava_next import LlavaNext

FAMILIES: dict[str, Family] = {"llava": Llava(), "llava-next": LlavaNext(), "llava-hr": LlavaHr()}
