"""Runs Evidently as a process that reads one request from standard input, writes one result, and exits.

Evidently takes 300 MB and seconds to import. `engine` starts this process, enforces the timeout and reads the
result. Only a process can be killed when a run hangs, and only its end returns the memory.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import Any

from inference.ipc.group_signals import die_with_parent

MAX_BYTES = 3 << 29
#: Seconds of processor time for the import, and for each group.
CPU_S, GROUP_CPU_S = 60, 5
#: Replaces angle brackets with look-alikes. Replaces the two Unicode separators that end a line of JavaScript
#: with spaces.
_MARKUP = str.maketrans({"<": "\u2039", ">": "\u203a", "\u2028": " ", "\u2029": " "})


def main() -> int:
    """Run the process, started as ``python -m streamer.drift.evidently_process GROUPS``; return 0 or 1."""
    die_with_parent()
    # Whoever stops the service may send SIGTERM to all of its processes. This one ignores it, because the
    # sampling process waits for the result and ends this process itself.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.getppid() == 1:  # our parent ended before the call above
        return 1
    cpu_s = CPU_S + GROUP_CPU_S * int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    os.environ["DO_NOT_TRACK"] = os.environ["EVIDENTLY_DISABLE_TELEMETRY"] = "1"
    request = json.load(sys.stdin)
    # Output that libraries print must not mix with the result.
    output, sys.stdout = sys.stdout, sys.stderr
    json.dump(score_groups(request), output)
    output.flush()
    return 0


def score_groups(request: dict[str, Any]) -> dict[str, Any]:
    """Return the scores by group and column; with ``html``, also the report on the only group."""
    scores, html = {}, ""
    for name, group in request["groups"].items():
        snapshot = _run(_without_markup(group) if request["html"] else group)
        scores[name] = {
            entry["config"]["column"]: float(entry["value"])
            for entry in json.loads(snapshot.json())["metrics"]
            if "column" in entry["config"]
        }
        if request["html"]:
            html = snapshot.get_html_str(as_iframe=False)
    return {"scores": scores, "html": html}


def _without_markup(group: dict[str, Any]) -> dict[str, Any]:
    """Return the group with categories that cannot act as markup.

    Evidently writes categories unescaped into a script of its page, where a class name of a hostile model
    could end the script.
    """

    def clean(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        cleaned = {
            name: [category.translate(_MARKUP) for category in columns[name]] for name in group["categorical"]
        }
        return columns | cleaned

    return group | {"current": clean(group["current"]), "reference": clean(group["reference"])}


def _run(group: dict[str, Any]) -> Any:
    import pandas as pd  # noqa: PLC0415 - only after the limits are set
    from evidently import DataDefinition, Dataset, Report  # noqa: PLC0415 - see above
    from evidently.presets import DataDriftPreset  # noqa: PLC0415 - see above

    numeric, categorical, thresholds = group["numeric"], group["categorical"], group["thresholds"]
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=categorical)

    def dataset(columns: dict[str, list[Any]]) -> Dataset:
        # Columns may differ in length: pandas fills the gaps, and Evidently ignores missing numbers.
        frame = pd.DataFrame({name: pd.Series(values) for name, values in columns.items()})
        return Dataset.from_pandas(frame, data_definition=definition)

    preset = DataDriftPreset(
        columns=[*numeric, *categorical],
        # The tests that Evidently chooses by itself flag two of three columns when nothing has changed.
        num_method="wasserstein",
        cat_method="jensenshannon",
        per_column_threshold=thresholds,
        drift_share=1 / len(thresholds),
    )
    return Report([preset]).run(
        current_data=dataset(group["current"]), reference_data=dataset(group["reference"])
    )


if __name__ == "__main__":
    sys.exit(main())
