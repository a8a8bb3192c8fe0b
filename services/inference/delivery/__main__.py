"""``python -m services.inference.delivery``: the command with the catalogue of this software. Files stay as published."""

import os
import sys

from services.inference.delivery.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
