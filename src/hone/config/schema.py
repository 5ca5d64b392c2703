"""The JSON Schema of the configuration, for editors and for programs that write configurations."""

from __future__ import annotations

from typing import Any

from hone.config.sections import Config

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """JSON Schema of a configuration file; every property has a description with its unit."""
    schema = Config.model_json_schema()
    return {"$schema": DIALECT, **schema, "title": "Hone configuration"}
