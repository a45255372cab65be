"""``rtnode serve`` with pipelines that take no time; the configuration is the first argument."""

import sys
from pathlib import Path

from node.config.load import load
from node.log import configure
from node.service import run
from tests.node_kit import FAKE_WORKER

if __name__ == "__main__":
    config = load(Path(sys.argv[1]))
    configure(config.log.format.value, config.log.level.value, sys.stdout)
    sys.exit(run(config, worker=FAKE_WORKER))
