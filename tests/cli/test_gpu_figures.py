"""`plan` with the figures of a GPU, of which the one here is made up."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny import scripted_task, tiny_config

from rllib_ezm.algorithm.update_cost import count_update
from rllib_ezm.cli.experiment_file import ExperimentFile
from rllib_ezm.cli.forecast import Rates, forecast
from rllib_ezm.cli.gpu_figures import GpuFigures
from rllib_ezm.cli.gpu_forecast import updates_on, with_updates_of, without_gpus
from rllib_ezm.cli.main import main
from rllib_ezm.utils.errors import UserError

FIGURES: dict[str, Any] = {
    "versions": {"torch": "2.13", "dry": False, "card": "NVIDIA Made-up", "memory_gib": 80.0},
    "limits": {"launch_us": 5.0},
    "updates, hard, bfloat16, eager": {
        "updates_per_second": 20.0,
        "flops": 2 * 10**12,
        "dispatches": 4000,
        "peak_gib": 9.0,
    },
    "updates, hard, bfloat16, captured": {"updates_per_second": 50.0, "peak_gib": 10.0},
    "updates, hard, float32, eager": {"updates_per_second": 10.0, "flops": 2 * 10**12},
    "updates, medium, bfloat16, eager": {"updates_per_second": 25.0, "flops": 10**12},
}


def write(folder: Path, figures: Any) -> Path:
    file = folder / "gpu.json"
    file.write_text(json.dumps(figures))
    return file


def test_an_update_of_the_same_size_is_the_measured_one(tmp_path: Path) -> None:
    card = GpuFigures(write(tmp_path, FIGURES))
    found = card.update(2 * 10**12 + 1, 4000, "auto")
    assert (found.seconds, found.measured) == (1 / 20.0, True)
    assert found.source == '"updates, hard, bfloat16, eager"'
    assert found.memory == 9 * 2**30
    assert card.update(10**12, 4000, "bfloat16").seconds == 1 / 25.0
    assert card.update(2 * 10**12, 4000, "bfloat16", captured=True).seconds == 1 / 50.0


def test_a_way_that_was_not_measured_is_taken_as_eager_and_says_so(tmp_path: Path) -> None:
    card = GpuFigures(write(tmp_path, FIGURES))
    found = card.update(2 * 10**12, 4000, "float32", compiled=True, captured=True)
    assert (found.seconds, found.source) == (0.1, '"updates, hard, float32, eager"')


def test_another_size_is_modeled_by_the_pace_or_the_launches(tmp_path: Path) -> None:
    card = GpuFigures(write(tmp_path, FIGURES))
    large = card.update(8 * 10**12, 4000, "bfloat16")
    assert (large.seconds, large.measured, large.memory) == (4 / 20.0, False, None)
    small = card.update(10**9, 4000, "bfloat16")
    assert small.seconds == pytest.approx(4000 * 5e-6)
    assert "40 TFLOP/s" in small.source
    assert "4,000 launches of 5 us" in small.source
    captured = card.update(10**9, 4000, "bfloat16", captured=True)
    assert captured.seconds == pytest.approx(1e9 / (2e12 * 50.0))
    assert "launches" not in captured.source


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({**FIGURES, "versions": {"torch": "2.13", "dry": True}}, r"--dry run.*without --dry"),
        ({**FIGURES, "versions": {"torch": "2.13", "card": "x"}}, "older benchmarks/gpu.py"),
        ({"updates": 3}, "not written by benchmarks/gpu.py"),
        ({"limits": {}}, 'it has no "versions"'),
        ([1], "not written by benchmarks/gpu.py"),
    ],
)
def test_other_files_are_refused(figures: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        GpuFigures(write(tmp_path, figures))


def test_a_file_that_is_no_json_or_missing_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    with pytest.raises(UserError, match=r"gpu.json cannot be read: No such file"):
        GpuFigures(file)
    file.write_text("card: H100")
    with pytest.raises(UserError, match=r"not written by benchmarks/gpu.py: Expecting value"):
        GpuFigures(file)


@pytest.mark.parametrize("part", [None, {"error": "OutOfMemoryError"}, {"left_out": "no time"}])
def test_a_part_that_failed_is_named(part: Any, tmp_path: Path) -> None:
    figures = {**FIGURES, "updates, hard, float32, eager": part}
    if part is None:
        del figures["updates, hard, float32, eager"]
    card = GpuFigures(write(tmp_path, figures))
    with pytest.raises(UserError, match="no figures of 'updates, hard, float32, eager'"):
        card.update(10**12, 4000, "float32")


def test_where_precisions_differ_the_slower_one_is_taken_for_both(tmp_path: Path) -> None:
    card = GpuFigures(write(tmp_path, FIGURES))
    config = tiny_config([scripted_task(5)]).search(inference_precision="auto")
    assert "differ, all in float32" in updates_on(card, config).source
    config.training(train_precision="bfloat16")
    assert '"updates, hard, bfloat16, eager"' in updates_on(card, config).source
    with pytest.raises(UserError, match=r"num_learners=2: .*of one GPU"):
        updates_on(card, config.learners(num_learners=2))


def test_the_count_of_an_update_follows_its_sizes() -> None:
    config = tiny_config([scripted_task(5)])
    small = count_update(config)
    assert small.dispatches > 1000
    config.training(train_batch_size_per_learner=16)
    twice = count_update(config)
    assert twice.dispatches == small.dispatches
    # Folding the weights of the view does not depend on the batch.
    assert 1.7 < twice.flops / small.flops <= 2.0


def test_a_file_with_gpus_is_planned_where_there_is_none(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "experiment.py"
    file.write_text(
        "from helpers.tiny import tiny_config\n"
        "config = tiny_config(['gym:Pendulum-v1']).learners(num_gpus_per_learner=1)\n"
        "stop = {'num_env_steps_sampled_lifetime': 1040}\n"
    )
    gpu = write(tmp_path, FIGURES)
    assert main(["plan", str(file), "--seconds", "1", "--gpu-json", str(gpu)]) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"measured on this machine over [\d,]+ env steps:\n  collection .*env steps/s", said
    )
    assert "modeled on NVIDIA Made-up, 80 GiB (" in said
    assert "the whole file: 1,040 env steps, 300 updates" in said


def test_headings_say_what_is_measured_where(tmp_path: Path) -> None:
    card = GpuFigures(write(tmp_path, FIGURES))
    rates = Rates(0.01, 0.0, 100, 0, 2**30, 0)
    found = with_updates_of(rates, card, card.update(2 * 10**12, 4000, "auto"))
    assert found.seconds_per_update == 0.05
    assert found.device_memory == 9 * 2**30
    assert found.learning_from is not None
    assert found.learning_from.startswith("measured on NVIDIA Made-up, 80 GiB (")


def test_a_replay_buffer_that_does_not_fit_on_the_card_is_refused(tmp_path: Path) -> None:
    card = GpuFigures(write(tmp_path, FIGURES))
    config = tiny_config([scripted_task(5)]).learners(num_gpus_per_learner=1)
    config.replay(replay_device="learner", max_replay_bytes=None, capacity_per_task=10**10)
    with pytest.raises(UserError, match=r"needs 260\.\d GiB of the GPU, which has 80\.0 GiB free"):
        updates_on(card, config)
    updates_on(card, config.replay(capacity_per_task=10**6))


def test_the_plan_says_what_of_the_replay_buffer_is_on_the_gpu() -> None:
    config = tiny_config([scripted_task(5)]).learners(num_gpus_per_learner=1)
    stop = {"num_env_steps_sampled_lifetime": 10**6}
    file = ExperimentFile(Path("experiment.py"), config, stop)
    rates = Rates(0.01, 0.1, 100, 10, 2**30, 2**30)
    on_host = forecast(file, rates)
    config.replay(replay_device="learner")
    on_gpu = forecast(file, rates)
    assert on_gpu.replay_on_gpu == config.replay_bytes_on_gpu() > 0
    assert on_host.memory - on_gpu.memory == on_gpu.replay_on_gpu
    assert "GiB of the replay buffer" in "\n".join(on_gpu.lines())
    assert "GiB of the replay buffer" not in "\n".join(on_host.lines())


def test_without_gpus_nothing_is_asked_of_any() -> None:
    config = tiny_config([scripted_task(5)]).learners(num_learners=1, num_gpus_per_learner=1)
    config.env_runners(num_env_runners=2, num_gpus_per_env_runner=0.5)
    config.asynchrony(asynchronous=True, num_reanalyze_workers=1)
    here = without_gpus(config)
    here.validate()
    assert (here.num_gpus_per_learner, here.num_gpus_per_env_runner) == (0, 0)
    assert here.num_env_runners == 2
