"""Download a registered model from the hub, at the commit that it is pinned to, or the data of suites."""

import argparse

from fitprune.arguments import names
from fitprune.errors import FitPruneError
from harness.models.checkpoint import download
from harness.models.families import FAMILY_NAMES
from harness.models.registry import find_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "model",
        nargs="?",
        metavar="NAME",
        help="a registry name, a family's (its standard checkpoint), or a hub id (its latest revision)",
    )
    what.add_argument(
        "--data",
        type=names,
        metavar="SUITE[,SUITE]",
        help="the suites' data sets, as they are on the hub now; runs read them at this commit from then on",
    )


def run(options: argparse.Namespace) -> None:
    """Print where the model is and, for one in its authors' layout, the command that converts it; of data, their size before
    they are fetched.
    """
    if options.data:
        for suite in options.data:
            _fetch(suite)
        return
    family = FAMILY_NAMES.get(options.model)
    spec = find_model(options.model if family is None else family.standard)
    folder = download(spec)
    print(folder)
    if spec.convert:
        print(f"next: {spec.convert.replace('SOURCE', str(folder)).replace('TARGET', spec.name)}")


def _fetch(suite: str) -> None:
    """Fetch a suite's data. What is here already is not fetched again: an interrupted download goes on with the file that it
    broke off in.
    """
    from harness.tasks.build import build_task, task_config
    from harness.tasks.hub import is_hub_id, latest_of, size_of
    from harness.tasks.spec import configurations
    from harness.tasks.specs import find_suite

    spec, config = find_suite(suite), task_config(suite)
    repository = str(config.get("dataset_path"))
    if not is_hub_id(repository):
        raise FitPruneError(f"the data of suite '{suite}' are no data set of the hub, but {repository}")
    commit = latest_of(repository)
    asked = configurations(spec) if spec.questions else [config.get("dataset_name")]
    print(f"{suite}: {repository} at {commit[:8]}, {size_of(repository, asked) / 1e6:,.1f} MB", flush=True)
    print(f"{suite}: {len(build_task(suite, 'hub', fetch=True).rows)} questions are on this machine")
