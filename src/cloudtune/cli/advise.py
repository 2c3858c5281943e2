"""``cloudtune advise``: which approach fits, and from how many requests per month a tuned model costs less."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudtune.cli.options import command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudtune.advice import Advice, BreakEven
    from cloudtune.cli.session import Session

_QUESTIONS = {
    "change": "What must change that a prompt does not reach (style, task, knowledge, language; several with commas)",
    "updates": "How often does the information in the answers change (never, yearly, monthly, daily)",
    "rows": "How many labeled rows do you have (none, tens, hundreds, thousands, millions, or a number)",
    "texts": "How many texts of the domain do you have (none, tens, hundreds, thousands, millions, or a number)",
    "budget_usd": "How much may be spent on training, in USD",
    "cite_sources": "Must answers show their sources (yes, no)",
    "low_latency": "Must answers be fast or cheap (yes, no)",
}
_POINTS = 41
"""Points of each line of the plot."""


@command("advise", without=("backend",))
@click.argument("file", required=False, metavar="[FILE]", type=click.Path(path_type=Path))
@click.option(
    "--change",
    multiple=True,
    metavar="WHAT",
    help="What must change: style, task, knowledge, or a language that no base model knows. Repeatable.",
)
@click.option("--updates", metavar="WHEN", help="How often the information changes: never, yearly, monthly, daily.")
@click.option("--rows", metavar="COUNT", help="Labeled rows: none, tens, hundreds, thousands, millions, or a number.")
@click.option("--texts", metavar="COUNT", help="Texts of the domain without labels, like --rows. Default: none.")
@click.option("--budget", "budget_usd", metavar="USD", help="What may be spent on training.")
@click.option("--cite-sources/--no-cite-sources", default=None, help="Answers must show their sources.")
@click.option("--low-latency/--no-low-latency", default=None, help="Answers must be fast or cheap.")
@click.option("--all", "everything", is_flag=True, help="Compare all approaches, not only the recommended ones.")
@click.option("--job", metavar="JOB", help="Compute the break-even from the last evaluation of this job.")
@click.option(
    "--evaluation",
    "evaluation_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Compute it from this output of `cloudtune evaluate JOB --json`.",
)
@click.option(
    "--usd",
    multiple=True,
    metavar="NAME=USD",
    help="A price of the break-even: training, hosting_month, "
    "or, per 1M tokens, base_input, base_output, tuned_input, tuned_output. Repeatable.",
)
@click.option("--months", type=float, help="How long the tuned model is used. Default: 12, or until its end date.")
@click.option(
    "--margin",
    type=float,
    default=0.05,
    show_default=True,
    help="How much worse the tuned model may be, as a share of the metric's range.",
)
@click.option("--plot", is_flag=True, help="Plot the cost per month in the terminal.")
@click.option("--png", type=click.Path(path_type=Path, dir_okay=False), help="Save the plot to this file.")  # fmt: skip
def advise(
    session: Session, file: Path | None, job: str | None, evaluation_file: Path | None, usd: tuple[str, ...],
    months: float | None, margin: float, plot: bool, png: Path | None, everything: bool, **situation: Any,
) -> None:  # fmt: skip
    """Recommend prompting, RAG, fine-tuning, more pre-training or a combination, with reasons.

    The answers come from options, from FILE (YAML with fields such as `rows: 3000`), or from questions on a terminal.
    With --job or --evaluation, also compute from how many requests per month the tuned model costs less than its base
    model with a long prompt.
    """
    given = {name: value for name, value in situation.items() if value not in (None, ())}
    is_evaluated = job is not None or evaluation_file is not None
    if not is_evaluated and (usd or plot or png is not None or months is not None):
        raise click.UsageError("--usd, --months, --plot and --png require --job or --evaluation")
    found = None if is_evaluated and not given and file is None else _advice(file, given)
    costs = _break_even(session, job, evaluation_file, usd, months, margin) if is_evaluated else None
    if costs is not None and png is not None:
        from cloudtune.cli.render_plot import save_png

        save_png(_lines(costs), png, title="USD per month", across="requests per month")
        session.say(f"wrote {png}")
    _put(session, found, costs, plot=plot, everything=everything)


def _advice(file: Path | None, given: dict[str, Any]) -> Advice:
    """The advice, after questions for what is not given, if there is a terminal."""
    from cloudtune.advice import advise as advice_of
    from cloudtune.advice.situation import Situation

    required = [name for name, field in Situation.model_fields.items() if field.is_required()]
    if file is None and on_a_terminal() and any(name not in given for name in required):
        for name, question in _QUESTIONS.items():
            if name not in given:
                default = None if name in required else "none" if name == "texts" else "no"
                answer = click.prompt(question, err=True, default=default)
                given[name] = [word.strip() for word in answer.split(",")] if name == "change" else answer
    return advice_of(file, **given)


def on_a_terminal() -> bool:
    """Whether questions can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _break_even(
    session: Session, job: str | None, file: Path | None, usd: Sequence[str], months: float | None, margin: float
) -> BreakEven:
    from cloudtune.advice import break_even
    from cloudtune.advice.prices import prices_for
    from cloudtune.cli.report import read_evaluation
    from cloudtune.errors import InputError
    from cloudtune.evaluation.result import load

    ref = None if job is None else session.job(job).ref
    ledger = session.client.ledger
    if file is not None:
        evaluation = read_evaluation(file, ref)
    else:
        assert ref is not None
        stored = load(ledger, ref)
        if stored is None:
            hint = f"run: cloudtune evaluate {ref} --data TEST --few-shot 5"
            raise InputError(f"{ref} has not been evaluated on this machine", hint=hint)
        evaluation = stored
    prices = prices_for(evaluation.ref, ledger).given(usd)
    used = months if months is not None else prices.months_of_use(session.client.clock.now().date())
    return break_even(evaluation, prices, months=used, margin=margin)


def _put(session: Session, found: Advice | None, costs: BreakEven | None, *, plot: bool, everything: bool) -> None:
    from cloudtune.state import to_json

    session.result({"advice": None if found is None else to_json(found),
                    "break_even": None if costs is None else to_json(costs)})  # fmt: skip
    if session.json:
        return
    if found is not None:
        _put_advice(session, found, everything=everything)
    if costs is not None:
        if found is not None:
            session.put("")
        _put_costs(session, costs)
        if plot:
            _plot(session, costs)


def _put_advice(session: Session, found: Advice, *, everything: bool) -> None:
    from cloudtune.advice.rules import CRITERIA, NAMES
    from cloudtune.cli.render import table

    session.put(f"Use {found.summary}.\n")
    table(["APPROACH", "", "REASON"], [[NAMES[one.approach], one.effect, one.text] for one in found.reasons])
    session.put("")
    names = ["prompting", *(NAMES[one] for one in found.recommended), found.summary]
    shown = {name: cells for name, cells in found.comparison.items() if everything or name in names}
    table(
        ["", *(name.upper() for name in shown)], [[one, *(cells[one] for cells in shown.values())] for one in CRITERIA]
    )
    if not everything:
        session.say("\n--all compares all approaches")
    session.say(f"\n{found.first_step}")


def _put_costs(session: Session, costs: BreakEven) -> None:
    from cloudtune.advice.prices import PRICES
    from cloudtune.cli.render import figure, table

    session.put(costs.summary)
    for reason in costs.missing:
        session.put(f"  - {reason}")
    session.put("")
    if costs.quality:
        session.put(f"Quality: {costs.quality}")
    session.put(f"Training is spread over {costs.months:.3g} months.\n")
    prices = costs.prices
    low, high = prices.training_bounds
    rows = []
    for name, text in PRICES.items():
        usd = getattr(prices, name)
        shown = "unknown" if usd is None else figure(usd)
        if name == "training" and low is not None and high is not None and low != high:
            shown = f"{figure(low)} to {figure(high)}"
        rows.append([name, shown, text, prices.sources.get(name, "")])
    table(["PRICE", "USD", "WHAT", "SOURCE"], rows, right=("USD",))
    if (found := costs.requests_per_month) is None:
        return
    session.put("")
    at = [one for one in (found.low / 10, found.low, found.value, found.high, found.high * 10) if one is not None]
    lines = [(one, usd) for one in dict.fromkeys(round(one) for one in at) if (usd := costs.monthly_usd(one))]
    table(["REQUESTS PER MONTH", f"USD: {costs.against}", f"USD: {costs.model}"],
          [[f"{one:,}", f"{base:,.2f}", f"{tuned:,.2f}"] for one, (base, tuned) in lines],
          right=("REQUESTS PER MONTH", f"USD: {costs.against}", f"USD: {costs.model}"))  # fmt: skip


def _plot(session: Session, costs: BreakEven) -> None:
    from cloudtune.cli.render_plot import curves

    size = shutil.get_terminal_size((100, 30))
    drawn = curves(_lines(costs), width=min(size.columns, 120), height=min(max(size.lines - 6, 8), 24),
                   colour=sys.stdout.isatty(), across="requests per month")  # fmt: skip
    session.put(f"\nUSD per month\n{drawn}" if drawn else "\nthe costs are not known, so there is no plot")


def _lines(costs: BreakEven) -> dict[str, list[tuple[float, float]]]:
    """The cost per month of both models, up to twice the break-even. Empty if the costs are not known."""
    found = costs.requests_per_month
    most = 2 * found.high if found is not None else 100_000.0
    lines: dict[str, list[tuple[float, float]]] = {}
    for number in range(_POINTS):
        requests = most * number / (_POINTS - 1)
        if (usd := costs.monthly_usd(requests)) is not None:
            for name, value in zip((costs.against, costs.model), usd, strict=True):
                lines.setdefault(name, []).append((requests, value))
    return lines
