"""Writes what was measured into the model card and the manifests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.training.measure import empty_share
from models.training.symbols import CLASSES
from models.training.widths import KINDS, PARTS

_BEGIN, _END = "<!-- measured: begin -->", "<!-- measured: end -->"
Result = dict[str, Any]


def table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a Markdown table whose columns are aligned, so that it is also readable as plain text."""
    lines = [list(head), *([title, *cells] for title, cells in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([texts[0], rule, *texts[1:]])


def tables(results: Sequence[Result]) -> str:
    """Return the tables of the card: photographs, pictures without a code, and widths."""
    names = [result["name"] for result in results]

    def row(title: str, *cells: str) -> tuple[str, tuple[str, ...]]:
        return title, cells

    photos = [row("threshold", *(f"{result['threshold']:.2f}" for result in results))]
    for name in CLASSES:
        counts = [result["photographs"]["recall"][name] for result in results]
        photos.append(
            row(f"recall {name}", *(f"{found / max(1, codes):.3f} of {codes}" for found, codes in counts))
        )
    photos.append(row("precision", *(f"{result['photographs']['precision']:.3f}" for result in results)))
    doubled = [result["photographs"]["two_classes"] for result in results]
    photos.append(row("two classes on one object", *(_share(*counts) for counts in doubled)))
    groups = [name for name in results[0]["empty"] if not name.startswith("drawn ")]
    empty = [row("drawn, all kinds", *(_share(*empty_share(result, "drawn ")) for result in results))]
    kinds = [name for name in results[0]["empty"] if name.startswith("drawn ")]
    empty += [row(name, *(_share(*result["empty"][name]) for result in results)) for name in kinds]
    empty.append(
        row(
            "photographs of the part `test`", *(_share(*result["photographs"]["empty"]) for result in results)
        )
    )
    empty += [row(name, *(_share(*result["empty"][name]) for result in results)) for name in groups]
    parts = [table(["", *names], photos), table(["pictures with a box", *names], empty)]
    kinds = [kind for kind in KINDS if all(kind in result["width"] for result in results)]
    return "\n\n".join([*parts, _by_width(results, kinds)] if kinds else parts)


def _by_width(results: Sequence[Result], kinds: Sequence[str]) -> str:
    columns = [(result["width"][kind], f"{result['name']}, {kind}") for kind in kinds for result in results]
    rows = [
        (f"1/{part}", [f"{measured['recall'][str(part)]:.2f}" for measured, _ in columns]) for part in PARTS
    ]
    rows.append(("smallest with 0.90", [_part(measured["smallest"]) for measured, _ in columns]))
    return table(["width", *(name for _, name in columns)], rows)


def write(path: Path, results: Sequence[Result]) -> None:
    """Replace the measured part of a card. Raises ValueError when the card has no marks for it."""
    text = path.read_text("utf-8")
    begin, end = text.find(_BEGIN), text.find(_END)
    if not 0 <= begin < end:
        raise ValueError(f"{path}: expected the lines {_BEGIN} and {_END}; found no such part")
    path.write_text(f"{text[: begin + len(_BEGIN)]}\n\n{tables(results)}\n\n{text[end:]}", "utf-8")


def write_metrics(model: Path, result: Result) -> None:
    """Write the figures into a model's manifest. Raises ValueError when they are of another file."""
    path = model.with_suffix(".json")
    document = json.loads(path.read_text("utf-8"))
    if document.get("sha256") != result["sha256"]:
        raise ValueError(f"{path}: sha256 is {document.get('sha256')}; the figures are of {result['sha256']}")
    photos = result["photographs"]
    figures = {
        "threshold": result["threshold"],
        # The digest of the parts: the page of versions compares figures of the same set and part.
        "set": photos["split"],
        "recall": {
            name: round(found / codes, 4) for name, (found, codes) in photos["recall"].items() if codes
        },
        "precision": photos["precision"],
        "two_classes_on_one_object": _ratio(photos["two_classes"]),
        "pictures_without_a_code_with_a_box": {
            name: _ratio(count) for name, count in result["empty"].items()
        },
        "smallest_width": {
            kind: entry["smallest"] and f"1/{entry['smallest']}" for kind, entry in result["width"].items()
        },
    }
    # By part of the photographs, as `streamer train` and `streamer promote` write metrics.
    document["metrics"] = {"test": figures}
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _ratio(counts: Sequence[int]) -> float:
    part, whole = counts
    return round(part / whole, 4) if whole else 0.0


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} % of {whole}" if whole else "none"


def _part(part: int | None) -> str:
    return f"1/{part}" if part else "none"
