from __future__ import annotations

import json
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from rllib_ezm.algorithm.evaluation_report import EvaluationReport, TaskResult
from rllib_ezm.cli.experiment_file import parse_stop, running_as_script
from rllib_ezm.cli.main import main, run_example
from rllib_ezm.utils.errors import UserError

PPO_FILE = """
from ray.rllib.algorithms.ppo import PPO, PPOConfig

class FlakyPPO(PPO):
    def training_step(self):
        if self.iteration == {fails_at}:
            raise RuntimeError("broke on purpose")
        super().training_step()

config = (
    PPOConfig(algo_class=FlakyPPO)
    .environment("CartPole-v1")
    .env_runners(num_env_runners=0)
    .training(train_batch_size_per_learner=64, minibatch_size=64, num_epochs=1)
    .debugging(seed=7)
)
stop = {{"training_iteration": 2}}
"""


@pytest.fixture
def ppo_file(tmp_path: Path) -> Path:
    path = tmp_path / "ppo_cartpole.py"
    path.write_text(PPO_FILE.format(fails_at=None))
    return path


def one_line_error(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("\n")
    assert captured.err.count("\n") == 1, captured.err
    assert ": error: " in captured.err
    return captured.err


def test_importing_the_command_line_imports_neither_ray_nor_torch() -> None:
    code = "import sys, rllib_ezm.cli; assert not {'ray', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("options", [["--help"], ["-h"], []])
def test_help_lists_the_commands(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options) == 0
    out = capsys.readouterr().out
    assert "train" in out
    assert "evaluate" in out


def test_train_alone_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 0
    assert "file  Train the config of a Python FILE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["train", "file"], "Missing argument 'FILE'"),
        (["train", "file", "x.py", "--bogus"], "No such option '--bogus'"),
        (["train", "file", "x.py", "--num-samples", "0"], "--num-samples"),
        (["train", "file", "x.py", "--stop", "{"], "--stop is not JSON"),
        (["train", "file", "x.py", "--stop", "3"], "must be a JSON object"),
        (["train", "file", "nowhere.py"], "no such file: "),
        (["train", "file", "x.py", "--resume", "p", "--seed", "1"], "--seed cannot be combined"),
        (["train", "file", "x.py", "--resume", "p", "--restore", "q"], "--restore cannot be"),
        (["train", "file", "x.py", "--restore", "nowhere"], "no such checkpoint: "),
        (["train", "file", "x.py", "--resume", "p", "-n", "q"], "--experiment-name cannot be"),
        (["train", "file", "x.py", "--resume", "p", "--smoke"], "--smoke cannot be combined"),
        (["evaluate", "x", "--protocol", "fair"], "--protocol"),
        (["evaluate"], "Missing argument 'CHECKPOINT'"),
        (["evaluate", "nowhere"], "no such checkpoint: "),
        (["evaluate", "nowhere", "--episodes", "none"], "--episodes"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in one_line_error(capsys)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n", "no module-level variable `config`"),
        ("config = {'lr': 1}\n", "`config` is of type dict"),
        ("import math\n\nmath.sqrt(-1)\n", "wrong.py:3: ValueError: "),
        ("import no_such_module_anywhere\n", "wrong.py:1: ModuleNotFoundError: "),
        ("x = 1\nfoo(\n", "wrong.py:2: SyntaxError: "),
        ("raise ValueError('two\\nlines')\n", "wrong.py:1: ValueError: two lines"),
        ("import sys\nsys.exit(3)\n", "wrong.py:2: SystemExit: 3"),
        (
            "from ray.rllib.algorithms.algorithm_config import AlgorithmConfig\n"
            "config = AlgorithmConfig()\n",
            "names no algorithm",
        ),
        (
            "from ray.rllib.algorithms.ppo import PPOConfig\nconfig = PPOConfig()\nstop = 3\n",
            "`stop` is of type int",
        ),
        (
            "from ray.rllib.algorithms.ppo import PPOConfig\n"
            "config = PPOConfig().training(train_batch_size_per_learner=8, minibatch_size=64)\n",
            "`config` is not valid: `minibatch_size` (64)",
        ),
    ],
)
def test_a_wrong_file_is_one_line_and_exit_code_2(
    source: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(source)
    assert main(["train", "file", str(path), "--local-dir", str(tmp_path)]) == 2
    assert message in one_line_error(capsys)


def test_a_file_that_is_not_python_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("config: 1\n")
    assert main(["train", "file", str(path)]) == 2
    assert "not a Python file" in one_line_error(capsys)


def test_stop_is_read_as_json_numbers() -> None:
    assert parse_stop('{"training_iteration": 2, "env_runners/episode_return_mean": 1.5}') == {
        "training_iteration": 2,
        "env_runners/episode_return_mean": 1.5,
    }
    for wrong in ("{}", "[1]", '{"a": "1"}', '{"a": true}', '{"a": null}'):
        with pytest.raises(UserError, match="--stop"):
            parse_stop(wrong)


def test_a_file_sees_its_own_arguments_and_neighbors(tmp_path: Path) -> None:
    argv, path = sys.argv[:], sys.path[:]
    with running_as_script(tmp_path / "x.py"):
        assert sys.argv == [str(tmp_path / "x.py")]
        library = sys.path.index(sysconfig.get_path("stdlib"))
        packages = sys.path.index(sysconfig.get_path("purelib"))
        assert library < sys.path.index(str(tmp_path)) < packages
    assert (sys.argv, sys.path) == (argv, path)


def test_run_example_passes_the_arguments_of_the_process_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "example.py"
    path.write_text("x = 1\n")
    monkeypatch.setattr(sys, "argv", [str(path), "--stop", "nonsense"])
    with pytest.raises(SystemExit) as stopped:
        run_example(str(path))
    assert stopped.value.code == 2
    assert "example.py: error: --stop is not JSON" in one_line_error(capsys)


def test_train_checkpoint_tensorboard_and_an_experiment_that_has_ended(
    ppo_file: Path, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["train", "file", str(ppo_file)]
    assert main([*run, "--local-dir", str(tmp_path / "runs"), "-n", "first"]) == 0
    out = capsys.readouterr().out
    folder = tmp_path / "runs" / "first"
    assert f"tensorboard --logdir {folder}" in out
    assert "iter 2" in out
    assert "iter 3" not in out
    (checkpoint,) = folder.glob("*/checkpoint_*")
    assert f"Checkpoint:  {checkpoint}" in out
    assert (checkpoint / "rllib_checkpoint.json").is_file()
    assert list(folder.glob("*/events.out.tfevents.*"))
    assert "rllib evaluate" not in out  # PPO on CartPole: no task for it to play

    assert main([*run, "--local-dir", str(tmp_path / "runs"), "-n", "first"]) == 2
    assert f"--resume {folder}" in one_line_error(capsys)

    assert main(["evaluate", str(folder)]) == 2
    assert f"did you mean {checkpoint}" in one_line_error(capsys)

    assert main([*run, "--resume", str(checkpoint)]) == 2
    assert f"did you mean {folder}" in one_line_error(capsys)

    assert main([*run, "--resume", str(folder)]) == 0
    assert "Nothing was left to do" in capsys.readouterr().out


def test_a_failed_trial_exits_with_1_and_resumes_from_its_checkpoint(
    ppo_file: Path, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    ppo_file.write_text(PPO_FILE.format(fails_at=2))
    folder = tmp_path / "flaky"
    options = ["--local-dir", str(tmp_path), "-n", "flaky", "--checkpoint-freq", "1"]
    options += ["--num-samples", "2", "--stop", '{"training_iteration": 3}']
    assert main(["train", "file", str(ppo_file), *options]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("failed: RuntimeError: broke on purpose") == 2
    resume = ["train", "file", str(ppo_file), "--resume", str(folder)]
    assert f"Go on with:  rllib {' '.join(resume)}" in captured.out
    seeds = [json.loads(p.read_text())["seed"] for p in sorted(folder.glob("*/params.json"))]
    assert seeds == [7, 8]

    ppo_file.write_text(PPO_FILE.format(fails_at=None))
    assert main(resume) == 0
    out = capsys.readouterr().out
    assert "Resuming after 4 iterations" in out
    assert "iter 1 " not in out
    assert out.count("iter 3") == 2
    kept = json.loads((folder / "rllib_run.json").read_text())["commands"]
    first = ["train", "file", str(ppo_file), *options]
    assert kept == [shlex.join(["rllib", *arguments]) for arguments in (first, resume)]
    assert len(list(folder.glob("*/checkpoint_000002"))) == 2


@pytest.mark.parametrize(
    ("module", "fix"),
    [("rllib_ezm.progress", "go on with commit d72cad0"), ("own_tasks", "PYTHONPATH")],
)
def test_an_experiment_of_a_missing_module_is_refused_in_one_line(
    ppo_file: Path,
    tmp_path: Path,
    ray_cluster: None,
    capsys: pytest.CaptureFixture[str],
    module: str,
    fix: str,
) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "rllib_run.json").write_text("{}")
    (folder / "tuner.pkl").write_bytes(f"c{module}\nSomething\n.".encode())
    (folder / "experiment_state-2026-01-01_00-00-00.json").write_text("{}")
    assert main(["train", "file", str(ppo_file), "--resume", str(folder)]) == 2
    message = one_line_error(capsys)
    assert f"written with the module {module}" in message
    assert fix in message


def test_a_trial_that_can_never_be_placed_is_refused(
    ppo_file: Path, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ppo_file.read_text()
    run = ["train", "file", str(ppo_file), "--local-dir", str(tmp_path)]
    ppo_file.write_text(source + "config.learners(num_gpus_per_learner=1)\n")
    assert main(run) == 2
    assert "asks for 1 GPU, but Ray has 0" in one_line_error(capsys)
    ppo_file.write_text(source + "config.env_runners(num_env_runners=99)\n")
    assert main(run) == 2
    assert "asks for 100 CPU, but Ray has 8" in one_line_error(capsys)
    assert main([*run, "--ray-num-cpus", "2"]) == 2
    assert "Ray already runs in this process" in one_line_error(capsys)


def test_evaluate_prints_the_table_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import rllib_ezm.algorithm.checkpoint_evaluation

    asked: dict[str, object] = {}

    def play(path: Path, **options: object) -> EvaluationReport:
        asked.update(options, path=path)
        return EvaluationReport([TaskResult("dmc:walker-run", [250.0], [1000], [0.25])])

    monkeypatch.setattr(rllib_ezm.algorithm.checkpoint_evaluation, "evaluate_checkpoint", play)
    (tmp_path / "rllib_checkpoint.json").write_text("{}")
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "has no checksums" in one_line_error(capsys)
    options = ["--unverified"]
    figures = tmp_path / "figures.json"
    options += ["--episodes", "1", "--num-simulations", "0", "--seed", "5"]
    options += ["--protocol", "released"]
    assert main(["evaluate", str(tmp_path), *options, "--json", str(figures)]) == 0
    assert callable(asked.pop("on_progress"))
    assert asked == {
        "path": tmp_path,
        "episodes": 1,
        "num_simulations": 0,
        "seed": 5,
        "video_dir": None,
        "protocol": "released",
    }
    assert "dmc:walker-run" in capsys.readouterr().out
    written = json.loads(figures.read_text())
    assert written["normalized_score_mean"] == 0.25
    assert (written["checkpoint"], written["seed"]) == (str(tmp_path), 5)
