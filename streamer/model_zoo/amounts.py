"""Bytes, rates and times as people read them, and the bar of a download. Pure: numbers in, text out."""

from __future__ import annotations

_BAR_CHARS = 24
_UNITS = ("kB", "MB", "GB")


def size_text(size: int | None) -> str:
    """Return bytes in decimal units, as file managers and release pages do; None: not known."""
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
    """Return ``[####....]``."""
    filled = chars * min(done, total) // max(1, total)
    return f"[{'#' * filled}{'.' * (chars - filled)}]"


def transfer_line(name: str, done: int, total: int | None, bytes_per_s: float) -> str:
    """Return the state of a download: bar, share, bytes, rate and the time that is left."""
    rate = f"{size_text(int(bytes_per_s))}/s"
    if not total:
        return f"{name}  {size_text(done)}  {rate}"
    share = f"{min(100, 100 * done // total):3d} %"
    left = f"{clock((total - done) / bytes_per_s)} left" if bytes_per_s > 0 else "-:-- left"
    return f"{name}  {bar(done, total)} {share}  {size_text(done)} of {size_text(total)}  {rate}  {left}"


def clock(seconds: float) -> str:
    """Return minutes and seconds; hours where there are some."""
    whole = max(0, int(seconds + 0.5))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
