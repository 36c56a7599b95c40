"""`Sizes`: what is measured, at the sizes that are owed and at toy ones, for which a CPU takes a minute or two."""

from dataclasses import dataclass

from baselines.registry import PRUNERS
from fitprune.arguments import TYPICAL_SIZE, Size
from harness.cells import DENSE

TEXT_TOKENS = 64  # of a timed prompt
# What all methods are compared at, and what a recipe is fitted for.
METHODS_REDUCTION, FIT_REDUCTION = 0.5, 0.6


@dataclass(frozen=True)
class Shape:
    """A registered model, whose weights are random here, and its prompts.

    Attributes:
        called: for people.
        tokens: visual tokens of an image of this size.
    """

    model: str
    called: str
    tokens: int
    image: Size = TYPICAL_SIZE

    def __str__(self) -> str:
        return f"{self.called}, {self.tokens} visual tokens"


@dataclass(frozen=True)
class Sizes:
    """All sizes of a run.

    Attributes:
        few, many: the shapes, by their visual tokens.
        batches: batch sizes; the last one's throughput is compared with the first one's.
        reductions: of FitPrune's prefills.
        lengths, heads, dim: of one layer's queries and keys.
        samples: of a fit, read in batches of `fit_batch`; the literal procedure is run on the first `literal` of them.
        questions: of the evaluation.
        new_tokens: of an answer whose time is taken.
        methods: those that are compared.
    """

    few: Shape
    many: Shape
    batches: tuple[int, ...]
    reductions: tuple[float, ...]
    repeats: int
    lengths: tuple[int, ...]
    heads: int
    dim: int
    samples: int
    fit_batch: int
    literal: int
    questions: int
    new_tokens: int
    methods: tuple[str, ...]


FULL = Sizes(
    Shape("llava-1.5-7b", "LLaVA-1.5-7B", 576),
    Shape("llava-next-7b", "LLaVA-NeXT-7B", 2880, Size(672, 672)),
    batches=(1, 8),
    reductions=(0.3, 0.6, 0.9),
    repeats=7,
    lengths=(640, 2944),
    heads=32,
    dim=128,
    samples=655,
    fit_batch=8,
    literal=2,
    questions=200,
    new_tokens=16,
    methods=tuple(name for name, method in PRUNERS.items() if name != DENSE and not method.videos),
)
TOY = Sizes(
    Shape("llava-tiny", "llava-tiny", 144),
    Shape("llava-next-tiny", "llava-next-tiny", 288, Size(672, 672)),
    batches=(1, 2),
    reductions=(0.6,),
    repeats=1,
    lengths=(100,),
    heads=2,
    dim=16,
    samples=2,
    fit_batch=2,
    literal=1,
    questions=2,
    new_tokens=2,
    methods=("random", "downsample"),
)
