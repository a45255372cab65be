"""``python -m node.cli.conformance CONFORMANCE.md``: the statement of the sample configuration."""

import sys
from pathlib import Path

from node.cli.conformance.statement import SAMPLE, sample_config, statement

if __name__ == "__main__":
    Path(sys.argv[1]).write_text(statement(sample_config(), source=SAMPLE), encoding="utf-8")
