"""Progress of a download: its rate, and sizes, times and progress bars as text. Pure: times are passed in."""

from __future__ import annotations

from collections import deque

#: The rate is the mean over this many seconds.
SPAN_S = 5.0
_BAR_CHARS = 24
_UNITS = ("kB", "MB", "GB")


class ByteRate:
    """Mean rate of the last seconds. The part that an earlier download left does not count."""

    def __init__(self) -> None:
        #: Pairs of a time in seconds and the bytes received by then.
        self._marks: deque[tuple[float, int]] = deque()

    def mark(self, now: float, done: int) -> None:
        """Record how many bytes have been received by now."""
        if self._marks and done < self._marks[-1][1]:
            self._marks.clear()  # the download has started over
        self._marks.append((now, done))
        while len(self._marks) > 2 and self._marks[0][0] < now - SPAN_S:
            self._marks.popleft()

    def per_s(self) -> float:
        """Return bytes per second; 0 with fewer than two marks."""
        if len(self._marks) < 2:
            return 0.0
        (begun, first), (ended, last) = self._marks[0], self._marks[-1]
        return (last - first) / max(ended - begun, 1e-3)


def size_text(size: int | None) -> str:
    """Return bytes in decimal units, as file managers and release pages do; ``?`` for None."""
    if size is None:
        return "?"
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in _UNITS:
        value /= 1000
        if value < 999.5:
            return f"{value:.1f} {unit}" if value < 99.95 else f"{value:.0f} {unit}"
    return f"{value:.0f} GB"


def bar(done: int, total: int, chars: int = _BAR_CHARS) -> str:
    """Return a progress bar such as ``[####....]``."""
    filled = chars * min(done, total) // max(1, total)
    return f"[{'#' * filled}{'.' * (chars - filled)}]"


def transfer_line(name: str, done: int, total: int | None, bytes_per_s: float) -> str:
    """Return the status line of a download: bar, percentage, bytes, rate and remaining time."""
    rate = f"{size_text(int(bytes_per_s))}/s"
    if not total:
        return f"{name}  {size_text(done)}  {rate}"
    share = f"{min(100, 100 * done // total):3d} %"
    left = f"{clock((total - done) / bytes_per_s)} left" if bytes_per_s > 0 else "-:-- left"
    return f"{name}  {bar(done, total)} {share}  {size_text(done)} of {size_text(total)}  {rate}  {left}"


def clock(seconds: float) -> str:
    """Return ``minutes:seconds``, or ``hours:minutes:seconds`` from one hour on."""
    whole = max(0, int(seconds + 0.5))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
