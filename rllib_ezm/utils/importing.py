"""The user's own modules: behind the standard library, and found where a checkpoint needs them."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.ownership import warn_of_other_owner

IMPORT_FOLDERS = "import_folders"
"""Key of a manifest: the folders that modules were imported from, without those of Python."""

LIBRARY_FIRST = "RLLIB_EZM_STANDARD_LIBRARY_FIRST"
"""Environment variable: set where this process and its workers put the standard library first."""


def standard_library_first() -> None:
    """Move what stands before the standard library in `sys.path` behind it, but for `PYTHONPATH`.

    So a file `code.py` beside a training file does not hide Python's module `code`, which torch
    imports; a neighbor still wins over an installed package of its name. Ray puts the folder of the
    training file and the current one before all others in its workers.
    """
    library = sysconfig.get_path("stdlib")
    if library not in sys.path:
        return
    wanted = {os.path.abspath(e) for e in os.environ.get("PYTHONPATH", "").split(os.pathsep) if e}
    moved = [
        entry
        for entry in sys.path[: sys.path.index(library)]
        if os.path.abspath(entry) not in wanted and Path(entry).suffix != ".zip"
    ]
    for entry in moved:
        sys.path.remove(entry)
    behind = sys.path.index(library) + 1
    while behind < len(sys.path) and Path(sys.path[behind]).name == "lib-dynload":
        behind += 1
    sys.path[behind:behind] = moved


def import_folders() -> list[str]:
    """Folders of `sys.path` that are not part of the installed Python."""
    installed = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    found = dict.fromkeys(Path(entry) for entry in sys.path if Path(entry).is_absolute())
    return [
        str(path)
        for path in found
        if path.is_dir() and not installed & {path.resolve(), *path.resolve().parents}
    ]


@contextmanager
def importable(checkpoint: Path, manifest: Mapping[str, Any] | None) -> Iterator[None]:
    """For unpickling: modules are found where they were when the checkpoint was written.

    Those places come behind all others. Warns where the checkpoint is somebody else's.

    Args:
        checkpoint: The folder of the checkpoint, for the message.
        manifest: Its manifest, if it has one.

    Raises:
        UserError: A module that is unpickled in the block does not exist here, or has changed.
    """
    warn_of_other_owner(checkpoint)
    recorded = (manifest or {}).get(IMPORT_FOLDERS, [])
    folders = [name for name in recorded if isinstance(name, str)]
    sys.path.extend(n for n in folders if n not in sys.path and Path(n).is_dir())
    looked = f" (looked also in {', '.join(folders)})" if folders else ""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"{checkpoint} needs the module {error.name}, which does not exist here{looked}: put "
            "its folder on PYTHONPATH"
        ) from error
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{checkpoint} needs what a module does not have here{looked}: {error}"
        ) from error
