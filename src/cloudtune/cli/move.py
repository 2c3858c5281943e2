"""``cloudtune move``: move a job or a spec to another back end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.options import command, trust_option, trust_reward_option, yes_option

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloudtune.cli.session import Session
    from cloudtune.moving import Change, Move
    from cloudtune.spec import JobSpec

_SPECS = (".yaml", ".yml", ".json", ".toml")


@command("move")
@click.argument("what", metavar="JOB|SPEC")
@click.option("--to", "target", required=True, metavar="NAME", help="Back end to move to.")
@click.option("--set", "sets", multiple=True, metavar="A.B=VALUE", help="Change a field of SPEC first. Repeatable.")
@click.option("--model", metavar="MODEL", help="Base model there. Default: the one that the catalog names for it.")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="YAML file to write. Default: stdout.")  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@click.option("--rehearse", is_flag=True, help="Train with the old and the new spec against the emulator, and compare "
              "the models on the held-out rows. Sends nothing to a vendor.")  # fmt: skip
@click.option("--models", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
              help="With --rehearse: as for `cloudtune emulate`.")  # fmt: skip
@click.option("--submit", is_flag=True, help="Plan the moved job, ask for confirmation and submit it.")
@yes_option
@trust_option
@trust_reward_option
def move(
    session: Session, what: str, target: str, sets: tuple[str, ...], model: str | None, output: Path | None,
    force: bool, rehearse: bool, models: Path | None, submit: bool, yes: bool,
    trust_remote_code: bool, trust_reward: bool,
) -> None:  # fmt: skip
    """Move a job or a spec to another back end: write its spec, and list what changes, moves or is lost.

    Sends nothing, except with --submit. Exits with 2 if the back end does not support the method.
    """
    from cloudtune.cli.evaluate import show_evaluation
    from cloudtune.cli.follow import submitted
    from cloudtune.cli.rehearse import NOTE
    from cloudtune.cli.rehearse import rehearse as rehearsed
    from cloudtune.cli.render_plan import plan_text
    from cloudtune.cli.run import ask
    from cloudtune.document.writing import spec_text
    from cloudtune.evaluation.result import summary
    from cloudtune.plan import plan_to_json

    if models is not None and not rehearse:
        raise click.UsageError("--models requires --rehearse")
    if output is not None:
        _check_output(output, force)
    spec, found = _moved(session, what, target, model, sets)
    folder = (output.absolute() if output is not None else Path.cwd() / "-").parent
    text = spec_text(found.spec, folder, _comments(found))
    if output is not None:
        _write(output, text)
    for line in _lines(found):
        session.say(line)
    document = move_json(found) | ({"file": str(output.absolute())} if output is not None else {})
    if rehearse:
        session.say()
        evaluation = rehearsed(
            session, spec, found, models, trust_remote_code=trust_remote_code, trust_reward=trust_reward
        )
        document |= {"rehearsal": summary(evaluation)}
        if not session.json:
            show_evaluation(session, evaluation)
            session.put(f"note: {NOTE}")
    if not submit:
        session.result(document)
        session.put(text if output is None else str(output), end="" if output is None else "\n")
        session.say(f"\nnext: cloudtune plan {output or 'FILE'}")
        return
    plan = session.client.plan(found.spec, backend=target)
    session.say(plan_text(plan))
    session.say()
    if not yes:
        ask("Submit this?")
    job = submitted(session, plan, trust_remote_code=trust_remote_code, trust_reward=trust_reward)
    session.result(document | {"plan": plan_to_json(plan), "ref": str(job.ref)})
    session.say(f"watch it with: cloudtune watch {job.ref}")


def _moved(session: Session, what: str, target: str, model: str | None, sets: tuple[str, ...]) -> tuple[JobSpec, Move]:
    """The spec of the job or the file, and the moved one."""
    from cloudtune.errors import InputError

    if what != "-" and Path(what).suffix.lower() not in _SPECS and not Path(what).is_file():
        if sets:
            raise click.UsageError("--set changes a spec file; with a job, change the written spec")
        job = session.job(what)
        return session.client.spec_of(job), session.client.move(job, target, model=model)
    file = session.open_spec(what, sets, None)
    spec, source = file.spec, session.config.insisted_backend
    if source:
        spec = spec.model_copy(update={"backend": source})
    try:
        return spec, session.client.move(spec, target, model=model)
    except InputError as error:
        error.problems = tuple(file.placed(problem) for problem in error.problems)
        error.message = "\n".join(map(str, error.problems))
        raise


def _check_output(file: Path, force: bool) -> None:
    from cloudtune.errors import InputError, Problem

    def refuse(message: str, fix: str) -> None:
        raise InputError([Problem(code="output", message=message, file=str(file), fix=fix)])

    if file.suffix.lower() not in (".yaml", ".yml"):
        refuse("move writes YAML files only", "choose a name such as job.yaml")
    if file.exists() and not force:
        refuse("the file already exists", "choose another name, or pass --force to overwrite it")
    if not file.absolute().parent.is_dir():
        refuse("the folder of the file does not exist", f"create it: mkdir -p {file.parent}")


def _write(file: Path, text: str) -> None:
    from cloudtune.errors import InputError, Problem

    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        message = f"cannot write the file: {error.strerror}"
        raise InputError([Problem(code="output", message=message, file=str(file))]) from error


def move_json(found: Move) -> dict[str, Any]:
    """The JSON object of a move."""
    from cloudtune.state import to_json

    def rows(changes: Iterable[Change]) -> list[dict[str, Any]]:
        return [to_json(one) | {"kind": one.kind} for one in changes]

    return {
        "from": found.source, "to": found.target, "spec": found.spec.model_dump(mode="json", exclude_none=True),
        "changes": rows(found.changes), "abilities": rows(found.abilities),
        "problems": [to_json(problem) for problem in found.problems],
    }  # fmt: skip


def _comments(found: Move) -> list[str]:
    """The comments at the beginning of the written spec."""
    from cloudtune.cli.terminal import one_line

    head = f"Moved from {found.titles[0]} to {found.titles[1]} by cloudtune move."
    lost = [f"Lost: {one.field}: {_shown(one.was)} ({one.reason})" for one in found.changes if one.kind == "lost"]
    return [one_line(line) for line in (head, *lost)]


def _lines(found: Move) -> list[str]:
    from cloudtune.cli.render_plan import first_of_each
    from cloudtune.report.plan_text import value_text

    source, target = found.titles
    lines = [f"Move from {source} to {target}"]
    groups = (
        *((kind.capitalize(), [one for one in found.changes if one.kind == kind])
          for kind in ("changed", "moved", "lost", "added")),
        (f"Different on {target}", found.abilities),
    )  # fmt: skip
    for title, changes in groups:
        if changes:
            lines += ["", title]
        for one in changes:
            values = [value_text(value) for value in (one.was, one.now) if value is not None]
            place = f" -> {one.to}: {values[0]}" if one.to else f": {' -> '.join(values)}"
            lines.append(f"  {one.field}{place}\n      {one.reason}")
    if found.problems:
        lines += ["", "Before you submit", *(f"  {line}" for line in first_of_each(found.problems))]
    return lines


def _shown(value: Any) -> str:
    from cloudtune.report.plan_text import value_text

    return value_text(value)
