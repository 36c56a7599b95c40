"""The commands of the harness, a module for each; `python -m harness` has them by themselves."""

from fitprune.arguments import Command

COMMANDS = {
    "models": Command("harness.commands.models", "list the registered models"),
    "methods": Command("harness.commands.methods", "list the registered methods and the engines that serve them"),
    "flops": Command("harness.commands.flops", "FLOPs of a prompt, by part, dense and pruned"),
    "latency": Command("harness.commands.latency", "times, memory and energy of a model, dense and pruned"),
    "tune": Command("harness.commands.tune", "the most pruning whose drop is certified on every suite"),
    "download": Command("harness.commands.download", "download a model at its pinned revision, or the data of suites"),
    "gallery": Command("harness.commands.gallery", "pictures of what pruners keep, for the page of fitprune report"),
    "scenes": Command("harness.scenes.mini.command", "write the mini suites and the calibration set, also in fine print"),
}
