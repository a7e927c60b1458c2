from __future__ import annotations

import importlib.util
import pickle
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from rllib_ezm.tasks import resolve_task, task_set
from rllib_ezm.tasks.humanoid_bench import HumanoidBenchEnv, paper_scores
from rllib_ezm.tasks.humanoid_bench_import import import_humanoid_bench

EXAMPLES = Path(__file__).parents[2] / "tuned_examples"
needs_humanoid_bench = pytest.mark.skipif(
    importlib.util.find_spec("humanoid_bench") is None,
    reason="HumanoidBench is not installed (its install lines are in the README)",
)

H1 = dict.fromkeys(
    ("stand", "walk", "run", "stair", "crawl", "slide", "pole", "hurdle", "maze"), (51, 19)
)
H1HAND = dict.fromkeys([*H1, "sit_simple"], (151, 61)) | {
    "sit_hard": (164, 61),
    "balance_simple": (164, 61),
    "balance_hard": (177, 61),
    "reach": (157, 61),
}
DIMS = {f"h1-{task}": dims for task, dims in H1.items()} | {
    f"h1hand-{task}": dims for task, dims in H1HAND.items()
}
NEVER_TERMINATE = ("h1-crawl", "h1hand-crawl", "h1hand-reach")


def rollout(env, seed, steps=5):
    rng = np.random.default_rng(0)
    observations = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        observations.append(env.step(rng.uniform(-1, 1, env.action_space.shape))[0])
    return np.stack([*observations, env.reset()[0]])


def test_the_paper_scores_cover_its_tasks():
    scores = paper_scores()
    assert set(scores) == set(DIMS)
    assert scores["h1-run"] == {"random": 2.02, "success": 700.0}
    assert scores["h1hand-crawl"] == {"random": 278.868, "success": 800.0}
    assert all(score["success"] > score["random"] for score in scores.values())


def test_missing_humanoid_bench_names_the_install_lines(monkeypatch):
    import_humanoid_bench.cache_clear()
    monkeypatch.setitem(sys.modules, "humanoid_bench", None)
    with pytest.raises(ImportError, match=r"cannot be used.*humanoid_bench") as raised:
        resolve_task("hb:h1-walk")
    message = str(raised.value)
    assert "\npip install imageio 'mujoco>=3.17,<4' 'dm-control>=1.0.50'\n" in message
    assert "\npip install --no-deps -e 'git+https://github.com/" in message
    with pytest.raises(ImportError, match="pip install --no-deps -e"):
        HumanoidBenchEnv("h1-walk")
    with pytest.raises(ValueError, match=r"Known prefixes: dmc:, gym:, hb:"):
        resolve_task("h1-walk")


@pytest.mark.parametrize("make", [lambda name: resolve_task(f"hb:{name}"), HumanoidBenchEnv])
def test_g1_is_refused_with_the_reason(make):
    with pytest.raises(ValueError, match="changes the reward of every h1 environment"):
        make("g1-walk")


@needs_humanoid_bench
@pytest.mark.parametrize("name", DIMS)
def test_paper_tasks(name):
    spec = resolve_task(f"hb:{name}")
    assert spec.max_episode_steps == 1000
    assert spec.action_repeat == 1
    assert {"random": spec.random_score, "success": spec.success_score} == paper_scores()[name]
    env = spec.build()
    assert (*env.observation_space.shape, *env.action_space.shape) == DIMS[name]
    assert env.action_space.high.tolist() == [1.0] * DIMS[name][1]
    assert env.unwrapped.metadata["render_fps"] == 50
    first = rollout(env, seed=3)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(rollout(env, seed=3), first)
    assert not np.array_equal(rollout(env, seed=4)[0], first[0])


@needs_humanoid_bench
@pytest.mark.parametrize("name", ["h1-stand", "h1-pole", "h1-crawl", "h1hand-balance_hard"])
def test_episodes_end_as_the_protocol_says(name):
    rng = np.random.default_rng(0)
    lengths = {}
    for termination in ("respect", "ignore"):
        env = task_set([f"hb:{name}"]).make(0, termination=termination)
        env.reset(seed=0)
        done = length = 0
        while not done:
            _, _, terminated, truncated, _ = env.step(rng.uniform(-1, 1, env.action_space.shape))
            length += 1
            done = terminated or truncated
        lengths[termination] = length, terminated
    assert lengths["ignore"] == (1000, False)
    if name in NEVER_TERMINATE:
        assert lengths["respect"] == (1000, False)
    else:
        assert lengths["respect"][0] < 200
        assert lengths["respect"][1] is True


@needs_humanoid_bench
def test_two_instances_draw_the_same_goals():
    env, other = (resolve_task("hb:h1hand-reach").build() for _ in range(2))
    other.reset()
    np.testing.assert_array_equal(rollout(env, seed=1), rollout(other, seed=1))
    goals = [env.reset(seed=seed)[0][-3:] for seed in (1, 2, 3)]
    assert len({goal.tobytes() for goal in goals}) == 3


@needs_humanoid_bench
@pytest.mark.parametrize("name", ["h1-highbar_simple", "h1-package"])
def test_nothing_of_the_last_episode_is_left_after_a_reset(name):
    env = HumanoidBenchEnv(name)
    first = rollout(env, seed=3)
    rollout(env, seed=4)
    np.testing.assert_array_equal(rollout(env, seed=3), first)


@needs_humanoid_bench
def test_a_silent_breakdown_of_the_balance_board_is_caught(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = resolve_task("hb:h1hand-balance_hard").build()
    env.reset(seed=0)
    obs, *_ = env.step(np.zeros(61))
    env.unwrapped._env.data.qvel[0] = np.nan
    next_obs, reward, terminated, truncated, info = env.step(np.zeros(61))
    np.testing.assert_array_equal(next_obs, obs)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info["physics_error"] is True


@needs_humanoid_bench
def test_tasks_beyond_the_papers_and_pickling():
    spec = resolve_task("hb:h1strong-highbar_hard")
    assert (spec.random_score, spec.success_score, spec.max_episode_steps) == (0.0, 750.0, 1000)
    assert resolve_task("hb:h1-basketball").max_episode_steps == 500
    with pytest.raises(ValueError, match="Did you mean hb:h1hand-walk"):
        resolve_task("hb:h1hand-wolk")
    with pytest.raises(ValueError, match="Unknown task 'hb:h1strong-walk'"):
        resolve_task("hb:h1strong-walk")  # registered by HumanoidBench, but without a model
    env = HumanoidBenchEnv("h1-walk")
    copy = pickle.loads(pickle.dumps(env))
    np.testing.assert_array_equal(rollout(copy, seed=2), rollout(env, seed=2))


@needs_humanoid_bench
def test_the_small_example_is_valid(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    config = runpy.run_path(str(EXAMPLES / "ezm_h1.py"))["config"]
    config.validate()
    tasks = config.get_task_set()
    assert tasks.names == ("hb:h1-stand", "hb:h1-walk", "hb:h1-crawl")
    assert (tasks.obs_dim, tasks.action_dim) == (51, 19)


@needs_humanoid_bench
@pytest.mark.parametrize("suite", ["medium", "hard"])
def test_examples_hold_the_papers_values(suite):
    example = runpy.run_path(str(EXAMPLES / f"ezm_{suite}.py"))
    config = example["config"]
    config.validate()
    tasks = config.get_task_set()
    robot = {"medium": "h1-", "hard": "h1hand-"}[suite]
    assert tasks.names == tuple(f"hb:{name}" for name in paper_scores() if name.startswith(robot))
    assert (tasks.obs_dim, tasks.action_dim) == {"medium": (51, 19), "hard": (177, 61)}[suite]
    steps = example["stop"]["num_env_steps_sampled_lifetime"]
    assert steps == 1_000_000 * tasks.num_tasks
    assert steps * config.replay_ratio == pytest.approx({"medium": 2e5, "hard": 6e5}[suite])
    assert config.capacity_per_task == {"medium": 1_000_000, "hard": 2_000_000}[suite]
    assert config.train_batch_size_per_learner == 512
    assert config.env_config["termination"] == "respect"
    assert (config.value_support[1] > 299) == (suite == "hard")
