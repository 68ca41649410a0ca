"""`python -m service.cli`: the same as `tadpole`."""

from __future__ import annotations

import sys

from service.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
