"""The process in which Evidently runs: one request on standard input, one answer, and it ends.

Evidently takes 300 MB and seconds of imports; `engine` starts this, watches the time and reads the answer. An
own process, because nothing else ends a run that hangs, and nothing else gives its memory back.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
MAX_BYTES = 3 << 29
#: For the import, and for each group.
CPU_S, GROUP_CPU_S = 60, 5
#: What markup begins and ends with, to what looks like it; and the line ends that end a line of script.
_MARKUP = str.maketrans({"<": "\u2039", ">": "\u203a", "\u2028": " ", "\u2029": " "})


def main() -> int:
    """Run as ``python -m streamer.drift.evidently_process GROUPS``."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Sent to the whole group; the observer, which waits for the answer, ends this process.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.getppid() == 1:  # whoever started us ended before that
        return 1
    cpu_s = CPU_S + GROUP_CPU_S * int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    os.environ["DO_NOT_TRACK"] = os.environ["EVIDENTLY_DISABLE_TELEMETRY"] = "1"
    request = json.load(sys.stdin)
    # What libraries print must not stand in the answer.
    answer, sys.stdout = sys.stdout, sys.stderr
    json.dump(answer_to(request), answer)
    answer.flush()
    return 0


def answer_to(request: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of each group by column; with ``html`` the report of the one group."""
    scores, html = {}, ""
    for name, group in request["groups"].items():
        snapshot = _run(_harmless(group) if request["html"] else group)
        scores[name] = {
            entry["config"]["column"]: float(entry["value"])
            for entry in json.loads(snapshot.json())["metrics"]
            if "column" in entry["config"]
        }
        if request["html"]:
            html = snapshot.get_html_str(as_iframe=False)
    return {"scores": scores, "html": html}


def _harmless(group: dict[str, Any]) -> dict[str, Any]:
    """Return the group with words that cannot be markup, as a class of a hostile model may be called.

    Evidently writes the words into a script of its page as they are, so that one can end the script there.
    """

    def clean(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        words = {name: [word.translate(_MARKUP) for word in columns[name]] for name in group["words"]}
        return columns | words

    return group | {"current": clean(group["current"]), "reference": clean(group["reference"])}


def _run(group: dict[str, Any]) -> Any:
    import pandas as pd  # noqa: PLC0415 - after the limits
    from evidently import DataDefinition, Dataset, Report  # noqa: PLC0415 - see above
    from evidently.presets import DataDriftPreset  # noqa: PLC0415 - see above

    numeric, words, thresholds = group["numeric"], group["words"], group["thresholds"]
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=words)

    def dataset(columns: dict[str, list[Any]]) -> Dataset:
        # Columns of different lengths: Evidently leaves out what is missing.
        frame = pd.DataFrame({name: pd.Series(values) for name, values in columns.items()})
        return Dataset.from_pandas(frame, data_definition=definition)

    preset = DataDriftPreset(
        columns=[*numeric, *words],
        # Its own choice of tests flags two columns of three where nothing has changed.
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
