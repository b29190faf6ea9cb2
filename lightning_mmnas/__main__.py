"""Makes `python -m lightning_mmnas` the same as `mmnas`."""

import sys

from lightning_mmnas.commands.mmnas import main

if __name__ == "__main__":
    sys.exit(main())
