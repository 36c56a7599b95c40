"""A result and answers, made up."""

import dataclasses

from harness.answering.evaluate import Answer, Answers
from harness.results.result import Result, versions


def result(**changes):
    made = Result(
        model="llava-tiny",
        revision="abc",
        pruner="fastv",
        params={"k": 2},
        suite="gqa",
        metric="exact_match",
        score=80.0,
        dense_score=90.0,
        drop=10.0,
        drop_ci95=(8.0, 12.0),
        n=100,
        flops=1e9,
        dense_flops=2e9,
        reduction=0.5,
        latency_ms=None,
        memory_mb=None,
        versions=versions(),
        device="cpu",
        seed=0,
        date="2026-01-01T00:00:00+00:00",
        reduction_asked=0.5,
    )
    return dataclasses.replace(made, **changes)


def answers(count=3, score=1.0):
    made = [Answer(i, f"image{i}", "é <script>?", "yes", "yes", score) for i in range(count)]
    return Answers("gqa", "exact_match", 100.0, made, count, 0.1, "digest")
