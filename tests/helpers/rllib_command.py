"""The command `rllib` as a script: Ray takes a process without a script for an interactive one."""

from __future__ import annotations

import sys

from rllib_ezm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
