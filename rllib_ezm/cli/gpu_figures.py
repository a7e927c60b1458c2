"""What `benchmarks/gpu.py` has measured of a card, in place of assumptions about one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rllib_ezm.utils.errors import UserError

SAME_UPDATE = 0.01
"""Updates whose operations differ by less are the same one."""


class Pace(NamedTuple):
    """How fast a card makes matrix products inside of updates.

    Attributes:
        part: Part of the file that says so.
        flops: Of one update there.
        flops_per_second: Over the whole update.
        peak_gib: Peak memory of PyTorch there.
    """

    part: str
    flops: int
    flops_per_second: float
    peak_gib: float | None


@dataclass(frozen=True)
class CardUpdate:
    """What an update takes on a card.

    Attributes:
        seconds: Per update, without replay buffer and weight transfer.
        measured: Whether an update of these sizes was measured; otherwise it is modeled.
        source: Where it comes from, one line.
        memory: Peak memory of PyTorch [bytes]; None where it was not measured.
    """

    seconds: float
    measured: bool
    source: str
    memory: int | None


class GpuFigures:
    """The figures of a file of `benchmarks/gpu.py`.

    Args:
        file: Its path.

    Raises:
        UserError: It is not one, or of a `--dry` run.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._parts = _read(file)
        versions = self._parts["versions"]
        if "dry" not in versions:
            raise UserError(
                f"{file} was written by an older benchmarks/gpu.py, which counted no operations: "
                "run it again"
            )
        if versions["dry"] or "card" not in versions:
            raise UserError(
                f"{file} is of a --dry run, whose sizes are tiny: run benchmarks/gpu.py without "
                "--dry on the machine with the GPU"
            )
        self.card = str(versions["card"])
        self.memory_gib = float(versions["memory_gib"])

    @property
    def launch_seconds(self) -> float:
        """From one operator to the next, where the operators themselves take no time."""
        return 1e-6 * float(self._part("limits")["launch_us"])

    def pace(self, precision: str, *, compiled: bool = False, captured: bool = False) -> Pace:
        """The pace of updates that run in one way, or eagerly where that way was not measured.

        Args:
            precision: "float32", "bfloat16", or "auto", which is bfloat16.
            compiled: With `training(compile=...)`.
            captured: With `training(capture=True)`.

        Raises:
            UserError: Not even eager updates were measured.
        """
        if precision == "auto":
            precision = "bfloat16"
        way = " and ".join(("compiled",) * compiled + ("captured",) * captured) or "eager"
        flops = int(self._part(f"updates, hard, {precision}, eager")["flops"])
        part = f"updates, hard, {precision}, {way}"
        if "updates_per_second" not in self._parts.get(part, {}):
            part = f"updates, hard, {precision}, eager"
        return self._pace(part, flops)

    def update(
        self,
        flops: int,
        dispatches: int,
        precision: str,
        *,
        compiled: bool = False,
        captured: bool = False,
    ) -> CardUpdate:
        """What an update takes that makes so many operations.

        Args:
            flops: Of its matrix products.
            dispatches: Operators asked for.
            precision: As in `pace`.
            compiled: As in `pace`.
            captured: As in `pace`.

        Raises:
            UserError: As `pace`.
        """
        hard = self.pace(precision, compiled=compiled, captured=captured)
        for pace in (hard, self._of_medium(hard.part)):
            if pace is not None and abs(flops / pace.flops - 1.0) < SAME_UPDATE:
                memory = None if pace.peak_gib is None else int(pace.peak_gib * 2**30)
                seconds = pace.flops / pace.flops_per_second
                return CardUpdate(seconds, True, f'"{pace.part}"', memory)
        products = flops / hard.flops_per_second
        launches = 0.0 if "captured" in hard.part else dispatches * self.launch_seconds
        text = (
            f"{flops / 1e9:,.4g} GFLOP at the {hard.flops_per_second / 1e12:.3g} TFLOP/s of "
            f'"{hard.part}"'
        )
        if launches:
            text += f", at least {dispatches:,} launches of {1e6 * self.launch_seconds:.3g} us"
        return CardUpdate(max(products, launches), False, text, None)

    def _of_medium(self, part: str) -> Pace | None:
        medium = part.replace("hard", "medium")
        eager = medium.rpartition(", ")[0] + ", eager"
        if "updates_per_second" not in self._parts.get(medium, {}):
            return None
        return self._pace(medium, int(self._part(eager)["flops"]))

    def _pace(self, part: str, flops: int) -> Pace:
        found = self._part(part)
        return Pace(part, flops, flops * found["updates_per_second"], found.get("peak_gib"))

    def _part(self, name: str) -> Mapping[str, Any]:
        found = self._parts.get(name, {"error": "no such part"})
        why = found.get("error") or found.get("left_out")
        if why:
            raise UserError(f"{self.file} has no figures of {name!r} ({why}): measure them again")
        return found


def _read(file: Path) -> dict[str, Any]:
    wrong = f"{file} is not written by benchmarks/gpu.py"
    try:
        parts = json.loads(file.read_text())
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{wrong}: {error}") from error
    if not (isinstance(parts, dict) and all(isinstance(part, dict) for part in parts.values())):
        raise UserError(f"{wrong}: it is no object of objects")
    if "torch" not in parts.get("versions", {}):
        raise UserError(f'{wrong}: it has no "versions"')
    return parts
