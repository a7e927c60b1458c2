"""Print the commands of a marked block of README.md, one a line, so that CI runs what it says.

The block is the fenced one after `<!-- ci:NAME -->`. Commands joined by `&&` come on lines of their
own, where `set -e` sees each of them fail. `git clone` and the `cd` into the clone are left out: CI
is there already. So is `rllib train`, which takes over an hour: CI trains the same file briefly.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def commands(readme: str, name: str) -> list[str]:
    block = re.search(rf"<!-- ci:{re.escape(name)} -->\s*```\w*\n(.*?)\n\s*```", readme, re.DOTALL)
    if block is None:
        raise SystemExit(f"README.md has no fenced block after <!-- ci:{name} -->")
    lines = block[1].replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [p for p in parts if p and not re.match(r"#|git clone |cd rllib_ezm\b|rllib train ", p)]


if __name__ == "__main__":
    print("\n".join(commands(Path("README.md").read_text(encoding="utf-8"), sys.argv[1])))
