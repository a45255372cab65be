"""``python -m node`` is ``rtnode``."""

from node.cli.main import main

if __name__ == "__main__":
    main(prog_name="rtnode")
