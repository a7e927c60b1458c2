"""A policy as an ONNX file: one graph from a task's observation to its action, checked.

Needs the extra `export`; where it lacks, `export_onnx` says so.
"""

from __future__ import annotations

import json
import logging
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rllib_ezm.policy.graphs import Acting, MeanGraph, SearchGraph
from rllib_ezm.policy.policy import PlannerName, Policy
from rllib_ezm.search.settings import SearchSettings
from rllib_ezm.utils.errors import MissingPackageError, UserError

METADATA = "rllib_ezm"
"""Key of the file's metadata whose value is the JSON that `export_onnx` describes."""

PARITY_OBSERVATIONS = 1000
LATENCY_CALLS = 500


class Parity(NamedTuple):
    """Of the ONNX graph and the PyTorch module, on the same inputs.

    Attributes:
        observations: How many.
        largest_difference: Of their actions, as a share of the range of each dimension, over the
            observations where both chose the same action.
        same_action: Share of the observations where they did: of a mean policy 1.
    """

    observations: int
    largest_difference: float
    same_action: float


class Exported(NamedTuple):
    """A file and what was measured of it.

    Attributes:
        file: The file.
        num_simulations: Of the search; 0 for the mean.
        parity: With PyTorch.
        p50_ms: Median time of one observation on one core.
        p99_ms: 99 % quantile.
    """

    file: Path
    num_simulations: int
    parity: Parity
    p50_ms: float
    p99_ms: float


def export_onnx(
    policy: Policy,
    task: str,
    file: Path,
    *,
    planner: PlannerName = "search",
    num_simulations: int | None = None,
    budget_ms: float | None = None,
) -> Exported:
    """Write a policy for one task as an ONNX file, and compare it with PyTorch.

    The graph's input `observation` is [1, obs_dim] float32, the task's own, flat; its output
    `action` [1, action_dim] is within the bounds of the action space. A search has its random
    numbers as further inputs, see `SearchGraph`. The metadata has, as JSON under the key
    "rllib_ezm": version, task, planner, num_simulations, spaces, action_repeat, and
    the shapes of the random inputs with the number of value heads.

    Args:
        policy: On a CPU.
        task: Which of its tasks.
        file: Written.
        planner: "search", or the "mean" of the policy.
        num_simulations: S; None: as in evaluation.
        budget_ms: Halve S until 99 % of the calls take less; the mean where even one is too long.

    Raises:
        MissingPackageError: The extra `export` is not installed.
        UserError: The budget is too small for the mean, or the search is none of ours.
        ValueError: The task is unknown.
    """
    require_onnx()
    task_id = policy.task_id(task)
    settings = _settings(policy, planner, num_simulations)
    while True:
        graph: Acting = MeanGraph(policy, task_id)
        if settings is not None:
            graph = SearchGraph(policy, task_id, settings)
        simulations = 0 if settings is None else settings.num_simulations
        inputs = _random_inputs(graph.eval(), np.random.default_rng(0), 1)
        _write(graph, inputs, file, _metadata(policy, task_id, graph, simulations))
        session = open_session(file)
        p50, p99 = _latency(session, inputs)
        if budget_ms is None or p99 <= budget_ms:
            break
        if settings is None:
            raise UserError(
                f"Not even the mean of the policy keeps a budget of {budget_ms:g} ms: it takes "
                f"{p99:.2f} ms here (99 %)."
            )
        settings = _fewer(settings)
    return Exported(file, simulations, _parity(policy, graph, session), p50, p99)


def require_onnx() -> None:
    """Raise if the extra `export` is not installed.

    Raises:
        MissingPackageError: It says what to install.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f'ONNX files need the extra `export` ({error}): pip install "rllib-ezm[export]"'
        ) from error


def open_session(file: Path) -> Any:
    """An ONNX Runtime session on one core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        file.as_posix(), options, providers=["CPUExecutionProvider"]
    )


def _settings(
    policy: Policy, planner: PlannerName, num_simulations: int | None
) -> SearchSettings | None:
    if planner == "mean":
        return None
    name = policy.description.model["planner"]
    if name != "gumbel":
        raise UserError(f'The planner {name} has no graph: export the planner "mean".')
    settings = policy.search_settings(deterministic=True)
    if settings is not None and settings.refined_candidates:
        raise UserError(
            "A search that refines its candidates by gradients has no ONNX graph: export the "
            'planner "mean", or load the policy in Python with load_policy.'
        )
    if num_simulations is None or settings is None:
        return settings
    if num_simulations == 0:
        return None
    return replace(settings, num_simulations=num_simulations)


def _fewer(settings: SearchSettings) -> SearchSettings | None:
    simulations = settings.num_simulations // 2
    if simulations < 2:
        return None
    candidates = min(settings.num_candidates, simulations)
    return replace(
        settings,
        num_simulations=simulations,
        num_candidates=candidates,
        policy_candidates=min(settings.policy_candidates, candidates),
    )


def _write(
    graph: Acting, inputs: Mapping[str, NDArray[Any]], file: Path, metadata: Mapping[str, Any]
) -> None:
    from onnxscript import opset18

    def stable_sort(
        values: Any, stable: bool = True, dim: int = -1, descending: bool = False
    ) -> Any:
        """TopK of everything, which breaks ties in favor of the lower index."""
        ops: Any = opset18
        size = ops.Gather(ops.Shape(values), ops.Constant(value_ints=[dim]))
        return ops.TopK(values, size, axis=dim, largest=int(descending), sorted=1)

    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:  # they name packages that a graph like ours does not need, and folding
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                tuple(torch.as_tensor(x) for x in inputs.values()),
                dynamo=True,
                input_names=[*inputs],
                output_names=["action"],
                verbose=False,
                custom_translation_table={torch.ops.aten.sort.stable: stable_sort},
            )
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    assert program is not None
    program.model.metadata_props[METADATA] = json.dumps(metadata)
    file.parent.mkdir(parents=True, exist_ok=True)
    program.save(file.as_posix(), external_data=False)


def _metadata(policy: Policy, task_id: int, graph: Acting, simulations: int) -> dict[str, Any]:
    task = policy.description.tasks[task_id]
    return {
        **policy.description.metadata,
        "task": task.name,
        "planner": "search" if simulations else "mean",
        "num_simulations": simulations,
        "num_value_heads": graph.view.num_value_heads,
        "action_repeat": task.action_repeat,
        "spaces": task.spaces.to_json(),
        "random_inputs": {name: list(shape) for name, shape in graph.random_inputs().items()},
    }


def draw_random_inputs(
    metadata: Mapping[str, Any], rng: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """The random inputs of one call of a graph, by its metadata: standard normal, different heads.

    Args:
        metadata: The JSON of the file.
        rng: Draws them.
    """
    drawn: dict[str, NDArray[Any]] = {}
    for name, shape in metadata["random_inputs"].items():
        if name == "heads":
            order = [rng.permutation(metadata["num_value_heads"])[:2] for _ in range(shape[0])]
            drawn[name] = np.array(order, np.int64).reshape(shape)
        else:
            drawn[name] = rng.standard_normal(shape, np.float32)
    return drawn


def _random_inputs(
    graph: Acting, rng: np.random.Generator, rows: int
) -> dict[str, NDArray[np.float32]]:
    """Observations as they come, by the normalizer's statistics, and random inputs."""
    normalizer, dim = graph.view.model.normalizer, graph.obs_dim
    mean, std = normalizer.mean[:dim].numpy(), normalizer.variance[:dim].sqrt().numpy()
    observation = (mean + std * rng.standard_normal((rows, dim))).astype(np.float32)
    shapes = {
        "random_inputs": graph.random_inputs(),
        "num_value_heads": graph.view.num_value_heads,
    }
    return {"observation": observation, **draw_random_inputs(shapes, rng)}


def _parity(policy: Policy, graph: Acting, session: Any) -> Parity:
    rng = np.random.default_rng(1)
    span = graph.span.numpy()
    differences = np.empty(PARITY_OBSERVATIONS)
    with torch.no_grad():
        for i in range(PARITY_OBSERVATIONS):
            inputs = _random_inputs(graph, rng, 1)
            expected = graph(*(torch.as_tensor(x) for x in inputs.values())).numpy()
            found = session.run(None, inputs)[0]
            differences[i] = np.max(np.abs(found - expected) / span)
    same = differences < 1e-3 if isinstance(graph, SearchGraph) else np.isfinite(differences)
    return Parity(
        PARITY_OBSERVATIONS,
        float(differences[same].max()) if same.any() else math.inf,
        float(same.mean()),
    )


def _latency(session: Any, inputs: Mapping[str, NDArray[Any]]) -> tuple[float, float]:
    """Median and 99 % quantile of one call in ms, after some that do not count."""
    seconds: list[float] = []
    for _ in range(50 + LATENCY_CALLS):
        start = time.perf_counter()
        session.run(None, dict(inputs))
        seconds.append(time.perf_counter() - start)
    p50, p99 = np.percentile(seconds[50:], (50, 99))
    return 1e3 * float(p50), 1e3 * float(p99)


def table(exported: Sequence[Exported]) -> list[tuple[str, ...]]:
    """Rows for a table: file, simulations, latencies, parity."""
    return [
        (
            item.file.name,
            str(item.num_simulations or "mean"),
            f"{item.p50_ms:.2f}",
            f"{item.p99_ms:.2f}",
            f"{item.parity.same_action:.1%}",
            f"{item.parity.largest_difference:.1e}",
        )
        for item in exported
    ]
