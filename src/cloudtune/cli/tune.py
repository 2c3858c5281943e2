"""``cloudtune tune``: search for better parameters, and measure what they are worth."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.options import command, trust_option, trust_reward_option, yes_option

if TYPE_CHECKING:
    from cloudtune.cli.session import Session
    from cloudtune.document.specfile import SpecFile
    from cloudtune.ledger.trials import Trial
    from cloudtune.spec import JobSpec
    from cloudtune.tuning.result import TuneResult
    from cloudtune.tuning.study import TuneUpdate

INTERRUPTED = 5
"""Exit code when the user stops the search. Its jobs keep running."""
_MARK = "# Written by `cloudtune tune`"


@command("tune")
@click.argument("spec", metavar="SPEC")
@click.option("--set", "sets", multiple=True, metavar="A.B=VALUE", help="Change a field of the spec. Repeatable.")
@click.option("--unsupported", type=click.Choice(["refuse", "drop"]), help="What to do with fields that the back end "
              "does not support.")  # fmt: skip
@click.option("--accept-unknown-cost", is_flag=True, help="Allow jobs whose cost is unknown although there is a limit.")
@click.option("--output", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Where to write the "
              "spec with the best parameters. Default: SPEC with the suffix .tuned.yaml.")  # fmt: skip
@yes_option
@trust_option
@trust_reward_option
def tune(
    session: Session, spec: str, sets: tuple[str, ...], unsupported: str | None, accept_unknown_cost: bool,
    output: Path | None, yes: bool, trust_remote_code: bool, trust_reward: bool,
) -> None:  # fmt: skip
    """Search for better parameters, and measure what they are worth.

    The section `tune` of SPEC says what to vary, which metric on the validation rows chooses, and the budget. Each
    trial is a job. The best and the original parameters are then trained again with other seeds, and compared on the
    test rows. Run the same command again to continue after an interruption.
    """
    from cloudtune.cli.evaluate import Progress
    from cloudtune.cli.run import ask
    from cloudtune.errors import InputError
    from cloudtune.state import to_json

    file = session.open_spec(spec, sets, unsupported)
    target = output or Path("job.tuned.yaml" if spec == "-" else Path(spec).with_suffix(".tuned.yaml"))
    _check_target(target)
    if file.spec.tune is not None:
        session.say(_announced(file.spec))
        if not yes:
            ask("Start this search?")
    try:
        found = session.client.tune(
            file.spec, backend=session.config.insisted_backend, trust_remote_code=trust_remote_code,
            trust_reward=trust_reward, accept_unknown_cost=accept_unknown_cost,
            on_update=functools.partial(_say, session), on_progress=Progress(session),
        )  # fmt: skip
    except InputError as error:
        error.problems = tuple(file.placed(problem) for problem in error.problems)
        error.message = "\n".join(map(str, error.problems))
        raise
    except KeyboardInterrupt:
        session.say("\nthe search is interrupted, and its jobs are still running\n"
                    "run the same command again to continue it", even_quiet=True)  # fmt: skip
        session.result({"interrupted": True})
        click.get_current_context().exit(INTERRUPTED)
    _write(target, file, found, is_moved=bool(sets) or target.absolute().parent != Path(spec).absolute().parent)
    session.result(to_json(found) | {"file": str(target.absolute())})
    if not session.json:
        _show(session, found)
        session.put(f"\n{target}")
    session.say(f"train with it: cloudtune run {target}")


def _announced(spec: JobSpec) -> str:
    tune = spec.tune
    assert tune is not None
    budget = [f"{tune.trials} trials, {tune.parallel} at a time"]
    budget += [f"at most {tune.max_time / 60:g} minutes of training"] if tune.max_time else []
    budget += [f"at most {tune.max_cost_usd:g} USD"] if tune.max_cost_usd else []
    goal = "lowest" if tune.minimizes else "highest"
    measured = "does not measure the best parameters on test rows"
    if tune.seeds and (spec.data.test is not None or spec.evaluation is not None):
        seeds = f"{tune.seeds} other seed{'s'[: tune.seeds > 1]}"
        measured = (f"then trains the best and the original parameters with {seeds} each, and compares them on the "
                    "test rows")  # fmt: skip
    return (
        f"Search for the {goal} {tune.metric} on the validation rows: {'; '.join(budget)}\n"
        f"  varies {', '.join(tune.parameters)}\n"
        f"  {measured}"
    )


def _say(session: Session, update: TuneUpdate) -> None:
    trial = update.trial
    if trial is None:
        session.say(f"no more trials: {update.message}")
        return
    name = f"trial {trial.number}" + (f", seed {trial.rerun}" if trial.rerun is not None else "")
    if update.what == "started":
        session.say(f"{name}: {update.ref}: {_parameters(trial)}")
    elif update.what == "pruning":
        session.say(f"{name}: worse than the median, cancelled")
    else:
        best = ""
        if update.best is not None and trial.rerun is None:
            best = f"; best: {_result(update.best)}, trial {update.best.number}"
        session.say(f"{name}: {_result(trial)}{best}")


def _parameters(trial: Trial) -> str:
    from cloudtune.cli.render import figure

    return ", ".join(f"{path.rpartition('.')[2]} {figure(value)}" for path, value in trial.parameters.items()) or (
        "the spec's own parameters"
    )


def _result(trial: Trial) -> str:
    from cloudtune.cli.render import figure

    outcome = trial.outcome
    if outcome is None:
        return "running"
    value = "" if outcome.value is None else figure(outcome.value)
    if outcome.state == "complete":
        return value
    return f"{outcome.state} {value or outcome.message}".rstrip()


def _show(session: Session, found: TuneResult) -> None:
    from cloudtune.cli.render import duration, figure, table

    paths = list(dict.fromkeys(path for one in found.trials for path in one.parameters))
    headers = [path.rpartition(".")[2].upper() for path in paths]
    table(["TRIAL", *headers, found.metric.upper(), "TIME"], [
        [f"{one.number}{' (best)' if one.name == found.best.name else ''}",
         *(figure(one.parameters[path]) if path in one.parameters else "-" for path in paths),
         _result(one), duration(one.outcome.seconds if one.outcome else None)]
        for one in found.trials
    ], right=[*headers, "TIME"])  # fmt: skip
    session.put("")
    if found.measured is not None:
        for name, values in found.measured.by_seed.items():
            session.put(f"{found.measured.metrics[0]} on the test rows, {name}: {', '.join(map(figure, values))}")
    session.put(found.verdict)
    for note in found.notes:
        session.put(f"note: {note}")
    cost = f", {found.cost_usd:.4g} USD" if found.cost_usd else ""
    is_billed = found.cost_usd or session.client.backend(found.backend).capabilities.remote
    unknown = (
        f"; not counted: jobs with an unknown cost, {found.unknown_costs}" if found.unknown_costs and is_billed else ""
    )
    session.say(f"{found.jobs} jobs, {duration(found.seconds)} of training{cost}{unknown}")


def _check_target(target: Path) -> None:
    """Refuse to overwrite a file that this command has not written. Raises InputError."""
    from cloudtune.cli.init import refuse
    from cloudtune.files.regular_file import read_regular

    if target.exists() and not read_regular(target, 1 << 20).startswith(_MARK.encode()):
        refuse("exists", "the file already exists, and `cloudtune tune` has not written it", target,
               "choose another name with --output")  # fmt: skip


def _write(target: Path, file: SpecFile, found: TuneResult, *, is_moved: bool) -> None:
    from cloudtune.cli.init import refuse
    from cloudtune.document.document import as_yaml
    from cloudtune.files.private_files import write_private

    values: dict[str, Any] = found.spec if is_moved else file.with_values(found.best.parameters, without="tune")
    chosen = f"Trial {found.best.number} of {len(found.trials)}, {found.metric} {_result(found.best)}."
    try:
        heading = "".join(f"# {' '.join(text.split())}\n" for text in (found.verdict, chosen))  # one line each
        write_private(target, f"{_MARK}\n{heading}{as_yaml(values)}")
    except OSError as error:
        refuse("not_written", f"cannot write the file: {error.strerror}", target, "choose another one with --output")
