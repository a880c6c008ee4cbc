"""Write the JSON schema of report.json: `python -m tools.write_report_schema`."""

import json
from pathlib import Path

from vqzoo.artifact.files import write_text
from vqzoo.report.record import Record

SCHEMA = Path(__file__).parents[1] / "docs" / "report.schema.json"


def schema_text() -> str:
    """The text of the schema file."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(schema | Record.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    write_text(SCHEMA, schema_text())
    print(SCHEMA)
