"""The user's own modules that a checkpoint needs: where they were, and an error without them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rllib_ezm.utils.errors import UserError
from rllib_ezm.utils.ownership import warn_of_other_owner

IMPORT_FOLDERS = "import_folders"
"""Key of a manifest: the folders that modules were imported from, without those of Python."""


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
