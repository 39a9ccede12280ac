"""Draws the progress of one piece of work with rich. `Terminal` decides when to draw, and writes all else."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column
from rich.text import Text

#: The rate of a download is the mean over this many seconds.
RATE_S = 5.0
_BAR_COLUMNS = 24
#: Width of a plain line. No status is longer, so rich wraps none.
_PLAIN_COLUMNS = 1000


class StatusLine:
    """Shows the progress of one piece of work; keeps its rate while it is erased to print another line."""

    def __init__(self, layout: str, stream: TextIO, clock: Callable[[], float]) -> None:
        self.layout = layout
        self._progress = Progress(
            *_LAYOUTS[layout](),
            console=Console(file=stream, force_terminal=True),
            auto_refresh=False,
            transient=True,
            # Do not let rich capture standard output, which is for data even while a status is shown.
            redirect_stdout=False,
            redirect_stderr=False,
            get_time=clock,
            speed_estimate_period=RATE_S,
            expand=True,
        )
        self._task: TaskID | None = None
        self._done = 0.0

    def update(self, text: str, done: float, total: float | None) -> None:
        """Set the text and the progress that `draw` shows."""
        if self._task is not None and done < self._done:
            self._progress.remove_task(self._task)  # the work has begun again
            self._task = None
        if self._task is None:
            # Start a task with the work that is already done, such as an earlier part of a download, so that
            # it does not count in the rate.
            self._task = self._progress.add_task("", total=total, completed=int(done))
        self._progress.update(self._task, completed=done, total=total, description=text)
        self._done = done

    def draw(self) -> None:
        """Draw the status on the last line of the terminal."""
        self._progress.start()
        self._progress.refresh()

    def erase(self) -> None:
        """Remove the status from the terminal; ``draw`` shows it again."""
        self._progress.stop()

    def plain(self) -> str:
        """Return the status as one line without bar and colour. It has no bar afterwards."""
        out = io.StringIO()
        self._progress.columns = tuple(c for c in self._progress.columns if not isinstance(c, BarColumn))
        table = self._progress.make_tasks_table(self._progress.tasks)
        Console(file=out, width=_PLAIN_COLUMNS, color_system=None).print(table)
        return " ".join(out.getvalue().split())


class _Share(TaskProgressColumn):
    """Shows the completed share in per cent, or nothing if the size of the work is unknown."""

    def render(self, task: Task) -> Text:
        return Text() if task.total is None else super().render(task)


def _description() -> TextColumn:
    # A long text is cut off, not wrapped, because a status takes one line.
    column = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    return TextColumn("{task.description}", markup=False, table_column=column)


#: Columns of each layout, created for each status because a column caches what it has rendered.
_LAYOUTS: dict[str, Callable[[], tuple[ProgressColumn, ...]]] = {
    "text": lambda: (_description(),),
    "share": lambda: (BarColumn(_BAR_COLUMNS), _Share(), _description()),
    "transfer": lambda: (
        _description(),
        BarColumn(_BAR_COLUMNS),
        _Share(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    ),
}
