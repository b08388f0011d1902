"""`python -m modelyard.serving --config FILE`: serve the model that the file names."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from modelyard.serving.config import DEFAULT_REPORT, read_config
from modelyard.serving.crew import Crew
from modelyard.serving.errors import EXIT_LOAD_FAILED, LoadFailed
from modelyard.serving.report import Report


def main() -> int:
    """Read the configuration and serve. Answers the exit code."""
    parser = argparse.ArgumentParser(prog="modelyard.serving", description="Serve one model over HTTP.")
    parser.add_argument(
        "--config", type=Path, default=Path("/run/modelyard/serving.json"), help="the configuration, a JSON file"
    )
    arguments = parser.parse_args()
    try:
        config = read_config(arguments.config)
    except LoadFailed as error:
        Report(_report_path(arguments.config)).write("failed", error.message)
        return EXIT_LOAD_FAILED
    report = Report(config.report_path)
    if config.workers > 1:
        return asyncio.run(Crew(config, report).run())
    # Brings the HTTP library, which who only watches over others does not need.
    lifetime: Any = import_module("modelyard.serving.lifetime")
    return asyncio.run(lifetime.serve(config, report))


def _report_path(config: Path) -> str:
    """Where a configuration that is wrong in other places wants its report."""
    try:
        values: Any = json.loads(config.read_bytes())
        return str(values.get("report_path", DEFAULT_REPORT))
    except (OSError, ValueError, AttributeError):
        return DEFAULT_REPORT


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Prediction threads may still be inside a framework, whose own threads do not survive the interpreter's slow way out.
    os._exit(code)
