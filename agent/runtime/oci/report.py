"""Where errors and warnings of the command line go: the log that drivers read (`--log`, text or JSON), and stderr."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple


class Report(NamedTuple):
    """`path` "" is no log."""

    path: str = ""
    as_json: bool = False

    def error(self, message: str) -> None:
        self._log("error", message)
        sys.stderr.write(f"shoal-runtime: {message}\n")

    def warning(self, message: str) -> None:
        self._log("warning", message)

    def _log(self, level: str, message: str) -> None:
        if not self.path:
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = f'time="{now}" level={level} msg={json.dumps(message)}'
        if self.as_json:
            line = json.dumps({"level": level, "msg": message, "time": now})
        with Path(self.path).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def printed(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"
