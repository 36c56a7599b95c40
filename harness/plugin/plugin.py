"""Entry point of the plugin: options, parametrisation, the `cell` fixture. The work is in the modules beside this one.

The plugin comes with the package, so it is present in every pytest run of the environment. It does nothing there,
takes no option names (`--model` and `--seed` are popular) and imports nothing, unless the command line leads to a
suites folder: one whose `__init__.py` says `fitprune_suites = True`.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from harness.plugin import hooks
from harness.plugin.selection import DEST, failed_suites, missing_suites, selects_suites

if TYPE_CHECKING:
    from harness.plugin.cell import RunCell

SESSION = "fitprune-session"  # the name under which the run is registered, if suites are collected


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Let a project evaluate cells in its own way."""
    pluginmanager.add_hookspecs(hooks)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None, None, None]:
    """Register the options when the command line leads to the suites, before it is parsed for good.

    A help anywhere shows them, too, beside what the conftests there have added; names that these took are theirs.
    """
    suites = selects_suites(early_config, args)
    if suites:
        from harness.plugin.options import add_options

        add_options(parser)
        args += failed_suites(early_config, args)
    elif (missing := missing_suites(early_config.invocation_params.dir, args)) is not None:
        # Without the options pytest would complain of them, and not of the folder.
        raise pytest.UsageError(f"file or directory not found: {missing} (away from a checkout: pytest --pyargs suites)")
    yield
    if not suites and {"-h", "--help"}.intersection(args):
        from harness.plugin.options import add_options

        add_options(parser, only_free=True)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """A plan needs no workers: it is made, and not run."""
    if getattr(config.option, f"{DEST}plan", False) and hasattr(config.option, "numprocesses"):
        config.option.numprocesses, config.option.dist, config.option.tx = None, "no", []


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Check the command line before anything is collected, and start the run."""
    if hasattr(config.option, f"{DEST}model") and not (config.option.help or config.option.version):
        from harness.plugin.session import RunSession

        config.pluginmanager.register(RunSession.start(config), SESSION)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per model, pruner and reduction."""
    session = metafunc.config.pluginmanager.get_plugin(SESSION)
    if session is not None and "cell" in metafunc.fixturenames:
        from harness.plugin.parametrize import parametrize_cells

        parametrize_cells(metafunc, session.options)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """With `--plan`, say what would run, and run nothing. With `--engine`, run tests as their cells end elsewhere."""
    run = session.config.pluginmanager.get_plugin(SESSION)
    if run is None or session.config.option.collectonly or not (run.options.plan or run.options.engine):
        return None
    from harness.plugin.elsewhere import loop

    return loop(session, run)


@pytest.fixture
def cell(request: pytest.FixtureRequest) -> "RunCell":
    """A cell (model x pruner x suite): `cell.check()` evaluates it, stores the result and fails if the drop is too large."""
    session = request.config.pluginmanager.get_plugin(SESSION)
    if session is None:
        pytest.skip("cells run when the suites are named: pytest suites/")
    from harness.plugin.cell import RunCell

    return RunCell(request.param, session, request.node)
