from __future__ import annotations

import csv

import pytest

from rllib_ezm.report.reference import DATA, POLICIES, published_scores, reference_returns


def test_only_tasks_with_the_very_name_match() -> None:
    assert published_scores(["walker-run", "gym:walker-run", "dmc:walker"]) == []
    scores = {score.method: score for score in published_scores(["dmc:walker-run"])}
    assert scores["EfficientZero-V2"].return_mean == 658
    # 200k simulator steps are 100k decisions at action repeat 2.
    assert scores["EfficientZero-V2"].env_steps(2) == 100_000
    assert scores["EfficientZero-V2"].source.unit == "simulator steps"


def test_released_curves_say_that_they_count_stored_transitions() -> None:
    marks = [s for s in published_scores(["hb:h1-stand"]) if s.method == "EZ-M (released curve)"]
    assert [(score.steps, score.return_mean) for score in marks] == [
        (100_000, 43.91),
        (250_000, 746.16),
        (500_000, 797.43),
        (838_667, 777.49),  # where the three curves end, on average
    ]
    assert all("1.11 to 1.25 times larger" in score.source.x_axis for score in marks)


def test_the_papers_mean_scores_follow_from_the_shipped_returns() -> None:
    """Eq. 13 over the 9 Medium tasks of Table 1: EZ-M .926, MH-SAC .099."""
    random_success = {
        "stand": (10.545, 800),
        "walk": (2.377, 700),
        "run": (2.02, 700),
        "stair": (3.112, 700),
        "crawl": (272.658, 700),
        "slide": (3.191, 700),
        "pole": (20.09, 700),
        "hurdle": (2.214, 700),
        "maze": (106.441, 1200),
    }
    for method, expected in (("EZ-M", 0.926), ("MH-SAC", 0.099), ("BRC", 0.961)):
        normalized = []
        for task, (random, success) in random_success.items():
            (score,) = (s for s in published_scores([f"hb:h1-{task}"]) if s.method == method)
            normalized.append((score.return_mean - random) / (success - random))
        assert sum(normalized) / 9 == pytest.approx(expected, abs=5e-4)


def test_every_row_of_the_data_is_usable() -> None:
    with (DATA / "published_scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(published_scores({row["task"] for row in rows})) == len(rows) == 359
    assert len({(row["task"], row["method"], row["steps"]) for row in rows}) == len(rows)
    returns = reference_returns()
    assert returns["dmc:walker-walk", "random"] == 41.1
    assert {policy for _, policy in returns} == set(POLICIES)
