"""The trainer's metrics in a SageMaker job: metric definitions, with which DescribeTrainingJob shows the newest values.

The service applies the definitions to the log, so the log does not have to be read for them. Pure.
"""

from __future__ import annotations

from cloudtune_providers.aws.training_log import Figures
from cloudtune_trainer.submit.log_lines import PROGRESS, metric_names, read_metrics

_NUMBER = r"([-+0-9.eE]+)"
LIMITED = "progress:stopped_by_limit"


def metric_definitions(method: str) -> list[dict[str, str]]:
    """For CreateTrainingJob, which accepts 40 of them."""
    found = [
        {"Name": f"{split}:{name}", "Regex": rf'\[cloudtune\] metrics .*"{split}:{name}": {_NUMBER}'}
        for split, names in metric_names(method).items()
        for name in names
    ]
    found += [
        {"Name": f"progress:{name}", "Regex": rf'\[cloudtune\] metrics .*"{name}": {_NUMBER}'} for name in PROGRESS
    ]
    return [*found, {"Name": LIMITED, "Regex": rf'\[cloudtune\] end .*"stopped_by_limit": {_NUMBER}'}]


def read_figures(line: str) -> Figures | None:
    """The metrics of one line; a `LineReader`."""
    found = read_metrics(line)
    if found is None:
        return None
    return Figures(values=found.values, step=found.step, split=found.split, epoch=found.epoch)
