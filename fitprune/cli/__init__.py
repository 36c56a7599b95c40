"""The commands of the method, a module for each; `python -m fitprune` has them by themselves."""

from fitprune.arguments import Command

COMMANDS = {
    "fit": Command("fitprune.cli.fit", "fit recipes for FLOPs budgets on calibration data"),
    "show": Command("fitprune.cli.show", "print a recipe, and draw the tokens it leaves in each layer"),
}
