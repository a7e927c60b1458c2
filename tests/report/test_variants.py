from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.tune_results import write_trial

from rllib_ezm.report.runs import find_trials
from rllib_ezm.report.variants import Variant, base_name, group_trials
from rllib_ezm.utils.errors import UserError


def groups(variants: list[Variant]) -> dict[str, list[int | None]]:
    return {variant.name: [trial.seed for trial in variant.trials] for variant in variants}


def write_grid(folder: Path, settings: list[dict[str, Any]], seeds: int = 2) -> None:
    for index, config in enumerate(settings):
        for seed in range(seeds):
            write_trial(folder / f"t{index}_{seed}", {"dmc:a": [1.0]}, seed=seed, config=config)


@pytest.mark.parametrize(
    ("experiment", "base"),
    [
        ("quickstart_seed0", "quickstart"),
        ("ezm_dmc_2026-11-22_16-24-16", "ezm_dmc"),
        ("a_seed1_2026-11-22_16-24-16", "a"),
        ("seed_study", "seed_study"),
        ("_seed1", "_seed1"),
    ],
)
def test_base_name(experiment: str, base: str) -> None:
    assert base_name(experiment) == base


def test_experiments_that_differ_in_a_seed_suffix_are_one_variant(tmp_path: Path) -> None:
    for seed in (0, 1):
        config = {"num_cpus_for_main_process": seed}  # not a grid: a note, not a variant
        write_trial(tmp_path / f"x_seed{seed}" / "t", {"dmc:a": [1.0]}, seed=seed, config=config)
    write_trial(tmp_path / "y" / "t", {"dmc:a": [1.0]}, seed=0)
    variants = group_trials(find_trials([tmp_path])[0])
    assert groups(variants) == {"x": [0, 1], "y": [0]}
    assert variants[0].differing_fields() == {"num_cpus_for_main_process": ["0", "1"]}


def test_a_sweep_of_single_changes_names_each_by_its_change(tmp_path: Path) -> None:
    full = {"coeff": 0.25, "independent": True, "embed": ["rep", "dyn"]}
    changes = [{}, {"coeff": 0.0}, {"independent": False}, {"embed": ["rep"]}]
    # Addresses differ between processes; they are no setting.
    settings = [full | c | {"fn": f"<f at 0x7f0{i}>"} for i, c in enumerate(changes)]
    write_grid(tmp_path / "ablations", settings)
    names = groups(group_trials(find_trials([tmp_path])[0]))
    assert list(names) == ["base", "coeff=0.0", "independent=False", "embed=[rep]"]
    assert set(map(tuple, names.values())) == {(0, 1)}
    write_trial(tmp_path / "sac" / "t", {"dmc:a": [1.0]})
    assert "ablations: coeff=0.0" in groups(group_trials(find_trials([tmp_path])[0]))


def test_a_product_of_grids_names_every_value(tmp_path: Path) -> None:
    settings = [{"lr": lr, "nested": {"depth": d}} for lr in (0.1, 0.2) for d in (1, 2)]
    write_grid(tmp_path / "grid", settings)
    variants = group_trials(find_trials([tmp_path])[0])
    assert list(groups(variants)) == [
        "lr=0.1, depth=1",
        "lr=0.1, depth=2",
        "lr=0.2, depth=1",
        "lr=0.2, depth=2",
    ]


def test_group_by_fields(tmp_path: Path) -> None:
    write_grid(tmp_path / "e", [{"lr": 0.1, "nested": {"depth": 1}}], seeds=1)
    write_grid(tmp_path / "f", [{"lr": 0.2, "nested": {"depth": 1}}], seeds=1)
    trials = find_trials([tmp_path])[0]
    assert list(groups(group_trials(trials, ["lr"]))) == ["lr=0.1", "lr=0.2"]
    assert list(groups(group_trials(trials, ["experiment", "num_tasks"]))) == [
        "e, 1 task",
        "f, 1 task",
    ]
    with pytest.raises(UserError, match=r"seed 0 of dmc:a twice: e/t0_0 and f/t0_0"):
        group_trials(trials, ["nested/depth"])
    with pytest.raises(UserError, match=r"'nested/dept'; did you mean nested/depth"):
        group_trials(trials, ["nested/dept"])


def test_trials_of_one_task_each_make_a_variant_of_all(tmp_path: Path) -> None:
    for task in ("dmc:a", "dmc:b"):
        write_trial(tmp_path / f"single_{task[-1]}" / "t", {task: [1.0]})
    (variant,) = group_trials(find_trials([tmp_path])[0], ["num_tasks"])
    assert (variant.name, variant.tasks) == ("1 task", ("dmc:a", "dmc:b"))


def test_a_grid_of_tasks_names_each_set_by_its_tasks(tmp_path: Path) -> None:
    for index, tasks in enumerate((["dmc:a"], ["dmc:a", "dmc:b"])):
        write_trial(tmp_path / "grid" / f"t{index}", {task: [1.0] for task in tasks})
    assert list(groups(group_trials(find_trials([tmp_path])[0]))) == [
        "tasks=dmc:a",
        "tasks=dmc:a+dmc:b",
    ]


def test_the_settings_of_a_sweep_have_their_own_names(tmp_path: Path) -> None:
    settings = [
        {"variant": "full", "coeff": 0.25, "lr": lr} | change
        for change in ({}, {"variant": "no path", "coeff": 0.0})
        for lr in (0.1, 0.2)
    ]
    write_grid(tmp_path / "ablations", settings[::2])
    names = groups(group_trials(find_trials([tmp_path])[0]))
    assert names == {"full": [0, 1], "no path": [0, 1]}
    write_grid(tmp_path / "product", settings)
    assert list(groups(group_trials(find_trials([tmp_path / "product"])[0]))) == [
        "full, lr=0.1",
        "full, lr=0.2",
        "no path, lr=0.1",
        "no path, lr=0.2",
    ]
    assert "ablations: no path" in groups(group_trials(find_trials([tmp_path])[0]))
