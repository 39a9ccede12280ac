"""Writes the table in the chart's README and the descriptions in its schema, from comments in values.yaml.

``python -m tests.deploy.chart_reference`` updates both, and a test checks that they are up to date. The
``settings`` in the schema come from the service's `Settings`. Types and limits of all other values are
written in the schema by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from streamer.config.settings import Settings

CHART = Path(__file__).resolve().parents[2] / "charts" / "real-time-vision-api"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"
#: Settings that have their own values in the chart, or that the chart sets itself.
CHART_SETS = {
    "HOST",
    "ENGINE_CACHE_DIR",
    "REPLICA_ADDRESS",
    "REPLICA_PEERS",
    "PORT",
    "MODEL_V1_PATH",
    "MODEL_V2_PATH",
    "DRAIN_DELAY_S",
    "DRAIN_TIMEOUT_S",
    "SAMPLES_DRAIN_S",
    "ADMIN_API_KEYS",
    "SHADOW_V2",
    "SPLIT_V2",
    "API_KEYS",
    "API_KEYS_FILE",
    "METRICS_PORT",
    "ALLOW_ANONYMOUS",
    "SAMPLING",
    "SAMPLES_STORE",
    "SAMPLES_DIR",
    "S3_BUCKET_NAME",
    "S3_PREFIX",
    "S3_ENDPOINT_URL",
    "S3_ENCRYPTION",
    "AWS_REGION",
    "UDP_PORT_RANGE",
    "PUBLIC_IP",
    "ICE_SERVERS",
    "TURN_SECRET",
}
_KEYWORDS = ("type", "enum", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_KEY = re.compile(r"( *)([A-Za-z0-9_]+):(.*)")


@dataclass(frozen=True, slots=True)
class Value:
    """One value that a user may set: its dotted path, its default and its description."""

    path: str
    default: Any
    text: str


def read_values(text: str) -> list[Value]:
    """Return the documented values of a values.yaml, in its order.

    Raises ValueError that names a leaf without a description.
    """
    found: list[Value] = []
    parents: list[tuple[int, str]] = []
    comment: list[str] = []
    defaults = yaml.safe_load(text)
    documented: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = [stripped.removeprefix("# -- ")]
        elif stripped.startswith("# ") and comment:
            comment.append(stripped.removeprefix("# "))
        elif match := _KEY.fullmatch(line):
            indent, key = len(match[1]), match[2]
            parents = [(depth, name) for depth, name in parents if depth < indent] + [(indent, key)]
            path = ".".join(name for _, name in parents)
            if comment:
                found.append(Value(path, _at(defaults, path), " ".join(comment)))
                documented.append(path)
            comment = []
        else:
            comment = []
    for path in _leaves(defaults):
        if not any(path == name or path.startswith(f"{name}.") for name in documented):
            raise ValueError(f"values.yaml: {path} has no description: write '# -- …' above it")
    return found


def _at(values: Any, path: str) -> Any:
    for name in path.split("."):
        values = values[name]
    return values


def _leaves(values: Any, path: str = "") -> Iterator[str]:
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from _leaves(value, f"{path}.{name}" if path else name)
    else:
        yield path


def values_table(values: list[Value]) -> str:
    """Return the README's table."""
    rows = ["| value | default | meaning |", "| --- | --- | --- |"]
    for value in values:
        default = json.dumps(value.default, ensure_ascii=False).replace("|", "\\|")
        if isinstance(value.default, dict) and value.default:
            default = "see values.yaml"
        elif value.default == "":
            default = ""
        else:
            default = f"`{default.strip(chr(34))}`"
        rows.append(f"| `{value.path}` | {default} | {value.text.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def render_readme(readme: str, values: list[Value]) -> str:
    """Return the README with an up-to-date table. Raises ValueError if the marks of the table are missing."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md of the chart: {BEGIN} and {END} must both be there")
    return f"{before}{BEGIN}\n\n{values_table(values)}\n\n{END}{after}"


def render_schema(schema: dict[str, Any], values: list[Value]) -> dict[str, Any]:
    """Return the schema with up-to-date descriptions and settings."""
    schema = json.loads(json.dumps(schema))
    for value in values:
        node = schema
        for name in value.path.split("."):
            node = node["properties"][name]
        node["description"] = value.text
    schema["properties"]["settings"]["properties"] = settings_schema()
    return schema


def settings_schema() -> dict[str, Any]:
    """Return the schema of the service's settings, by variable, without those that the chart sets."""
    found = {}
    for name, field in Settings.model_json_schema()["properties"].items():
        if name.upper() not in CHART_SETS:
            kept = {word: field[word] for word in _KEYWORDS if word in field}
            found[name.upper()] = {"description": field["description"]} | kept
    return dict(sorted(found.items()))


def main() -> None:
    """Update both files."""
    values = read_values((CHART / "values.yaml").read_text())
    readme = CHART / "README.md"
    readme.write_text(render_readme(readme.read_text(), values))
    schema = CHART / "values.schema.json"
    schema.write_text(schema_text(render_schema(json.loads(schema.read_text()), values)))


def schema_text(schema: dict[str, Any]) -> str:
    """Return the text of the schema's file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
