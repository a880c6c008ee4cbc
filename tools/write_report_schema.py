"""Writes the JSON schema of report.json: `python -m tools.write_report_schema`."""

import json
from pathlib import Path

from vqzoo.report.record import Record

SCHEMA = Path(__file__).parents[1] / "docs" / "report.schema.json"


def schema_text() -> str:
    """The schema as the file holds it."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(schema | Record.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    print(SCHEMA)
