"""What every `inspect` prints: a JSON list of documents, or a template over each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cli.output.functions import plain, to_json
from cli.output.syntax import TemplateError
from cli.output.template import Template


def of_one(template: str) -> Template:
    """The template of one thing. Where it cannot be parsed docker ends with 64, and with 1 where a table's cannot."""
    try:
        return Template(template)
    except TemplateError as error:
        error.exit_code = 64
        raise


def render(documents: Sequence[dict[str, Any]], template: str) -> str:
    """The text for `documents`, newline included."""
    if template == "json":
        return f"{to_json(list(documents))}\n"
    if template:
        parsed = of_one(template)
        return "".join(f"{parsed.render(each)}\n" for each in documents) or "\n"
    return json.dumps(plain(list(documents)), indent=4, ensure_ascii=False) + "\n"
