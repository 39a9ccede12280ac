"""Records anew what users of the service meet, and says what has changed since.

    python -m tests.recordings.record            every recording
    python -m tests.recordings.record http       one of: http, websocket, metrics, openapi, commands, client

Run it after an intended change of an answer, a message, a metric, an option or a public name, read the
differences that it prints, and commit the files in `tests/recordings/data/` together with the change.
"""

from __future__ import annotations

import sys

from tests.recordings.differences import report
from tests.recordings.recorder import NAMES, as_committed, read_recording, record_all, write_recording

EXIT_USAGE = 2


def main() -> int:
    """Record what the command line names, report the changes, and return the exit code."""
    wanted = sys.argv[1:] or list(NAMES)
    if not set(wanted) <= set(NAMES):
        sys.stderr.write(__doc__ or "")
        return EXIT_USAGE
    made = record_all()
    for name in wanted:
        changed = report(read_recording(name), as_committed(made[name]))
        write_recording(name, made[name])
        sys.stdout.write(f"{name}: {changed or 'as before'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
