"""EZMConfig: every setting of EZ-M, fluent and validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.annotations import override

from rllib_ezm.algorithm.cross_task import CrossTaskExploration
from rllib_ezm.algorithm.env_runner import ENV_NAME, MultiTaskEnvRunner
from rllib_ezm.algorithm.evaluation import evaluate_per_task
from rllib_ezm.algorithm.validation import check_settings
from rllib_ezm.replay.checks import required_bytes
from rllib_ezm.tasks.failure import MAX_CONSECUTIVE_FAILURES
from rllib_ezm.tasks.multitask import TaskSet, task_set
from rllib_ezm.tasks.spec import TaskSpec, resolve_task


class EZMConfig(AlgorithmConfig):
    """Configuration of EZ-M (arXiv:2603.01452).

    The defaults are the paper's values where it states them, and `DEVIATIONS.md` lists every place
    where they are not.

    Example:
        >>> config = (
        ...     EZMConfig()
        ...     .tasks(["dmc:walker-stand", "dmc:walker-walk"], action_repeat=2)
        ...     .training(replay_ratio=0.5, train_batch_size_per_learner=128)
        ... )
        >>> algo = config.build_algo()
        >>> algo.train()
    """

    def __init__(self, algo_class: type | None = None) -> None:
        from rllib_ezm.algorithm.ezm import EZM

        super().__init__(algo_class=algo_class or EZM)
        self.env = ENV_NAME
        self.tasks([])
        self.env_runner_cls = MultiTaskEnvRunner
        self.num_env_runners = 0
        self.rollout_fragment_length = 10
        self.delay_between_env_runner_restarts_s = 1.0
        self.env_runner_health_probe_timeout_s = 0.2
        self.min_sample_timesteps_per_iteration = 500
        self.min_time_s_per_iteration = None
        self.metrics_num_episodes_for_smoothing = 10
        self.evaluation_interval = None
        self.evaluation_duration = 5
        self.evaluation_config = AlgorithmConfig.overrides(explore=False)
        self.custom_evaluation_function = evaluate_per_task

        # .training()
        self.gamma = 0.99
        self.lr = 1e-4
        self._train_batch_size_per_learner = 512
        self.grad_clip = 5.0
        self.grad_clip_by = "global_norm"
        self.weight_decay = 2e-5
        self.unroll_steps = 5
        self.td_steps = 5
        self.replay_ratio = 0.3
        self.num_steps_sampled_before_learning_starts = 1000
        self.num_random_steps = 1000
        self.cross_task_probability = 0.0
        self.weight_sync_interval = 5
        self.value_mixing = "variance"
        self.value_mixing_age = 200_000
        self.value_mixing_start = 50_000
        self.variance_window_decay = 0.999
        self.policy_loss = "best_action"
        self.reward_loss_coeff = 1.0
        self.value_loss_coeff = 0.25
        self.policy_loss_coeff = 1.0
        self.temporal_consistency_coeff = 5.0
        self.path_consistency_coeff = 0.25
        self.entropy_coeff = 0.0
        self.squashed_entropy = False
        self.target_tau = 0.001
        self.target_period = 1
        self.reanalyze_ratio = 1.0
        self.replayed_candidate = False
        self.train_precision = "float32"
        self.max_consecutive_nonfinite_updates = 10

        # .world_model()
        self.latent_dim = 512
        self.embedding_dim = 128
        self.action_embedding_dim = 64
        self.num_blocks = 3
        self.num_value_heads = 5
        self.head_dim = 512
        self.projection_dim = 1024
        self.num_bins = 51
        self.reward_support = (-299.0, 299.0)
        self.value_support = (-299.0, 299.0)
        self.log_std_min = -10.0
        self.log_std_max = 2.0
        self.task_embedding = ("rep", "dyn", "rew", "vp")

        # .search()
        self.num_simulations = 32
        self.num_candidates = 16
        self.policy_candidates = 4
        self.wide_std_factor = 3.0
        self.root_prior = "uniform"
        self.use_gumbel_noise = False
        self.minmax_delta = 0.01
        self.wide_candidates_at_eval = False
        self.num_simulations_at_eval: int | None = None
        self.value_reduction = "min2"
        self.value_clip_min: float | None = None
        self.inference_precision = "float32"

        # .replay()
        self.capacity_per_task = 1_000_000
        self.independent_replay = True
        self.priority_alpha = 1.0
        self.priority_beta = 1.0
        self.min_importance_weight = 0.1
        self.max_replay_bytes: int | None = 16 * 2**30
        self.store_buffer_in_checkpoints = True
        self.num_replay_actors = 0
        self.num_cpus_per_replay_actor = 1

        # .asynchrony()
        self.asynchronous = False
        self.num_reanalyze_workers = 0
        self.num_cpus_per_reanalyze_worker = 1
        self.num_gpus_per_reanalyze_worker = 0
        self.max_queued_batches = 4
        self.max_updates_behind = 50
        self.max_weight_age = 100
        self.weight_transfer_dtype = "float32"

    def tasks(
        self,
        tasks: Sequence[str | Mapping[str, Any] | TaskSpec],
        *,
        envs_per_task: int = 1,
        termination: str = "respect",
        max_consecutive_env_failures: int = MAX_CONSECUTIVE_FAILURES,
        **options: Any,
    ) -> EZMConfig:
        """Choose the tasks to train on at once; a task's id is its position.

        Args:
            tasks: Names ("dmc:walker-run", "gym:Pendulum-v1", a registered name), dicts of a name
                and options, or specs.
            envs_per_task: Copies of each task's environment, distributed over the env runners.
            termination: "respect", or "ignore" to drop terminations as the released code does.
            max_consecutive_env_failures: An environment that raises an exception is built again and
                its episode truncated; so many times in a row, for one task in one slot, end the
                training with an error. 1: at once.
            **options: Options of every task given by name, e.g. `action_repeat=2`.

        Raises:
            ValueError: If a task is unknown or an option does not exist.
        """
        specs: Any = tasks
        if not isinstance(tasks, Mapping):
            specs = [
                task if isinstance(task, TaskSpec) else resolve_task(task, **options)
                for task in tasks
            ]
        self.env_config = {
            "tasks": specs,
            "termination": termination,
            "envs_per_task": envs_per_task,
            "max_consecutive_env_failures": max_consecutive_env_failures,
        }
        return self

    @override(AlgorithmConfig)
    def training(
        self,
        *,
        weight_decay: float = NotProvided,
        unroll_steps: int = NotProvided,
        td_steps: int = NotProvided,
        replay_ratio: float = NotProvided,
        num_steps_sampled_before_learning_starts: int = NotProvided,
        num_random_steps: int = NotProvided,
        cross_task_probability: float = NotProvided,
        weight_sync_interval: int = NotProvided,
        value_mixing: str = NotProvided,
        value_mixing_age: int = NotProvided,
        value_mixing_start: int = NotProvided,
        variance_window_decay: float = NotProvided,
        policy_loss: str = NotProvided,
        reward_loss_coeff: float = NotProvided,
        value_loss_coeff: float = NotProvided,
        policy_loss_coeff: float = NotProvided,
        temporal_consistency_coeff: float = NotProvided,
        path_consistency_coeff: float = NotProvided,
        entropy_coeff: float = NotProvided,
        squashed_entropy: bool = NotProvided,
        target_tau: float = NotProvided,
        target_period: int = NotProvided,
        reanalyze_ratio: float = NotProvided,
        replayed_candidate: bool = NotProvided,
        train_precision: str = NotProvided,
        max_consecutive_nonfinite_updates: int = NotProvided,
        **kwargs: Any,
    ) -> EZMConfig:
        """Set the training settings; RLlib's own (`lr`, `gamma`, `grad_clip`, ...) go in `kwargs`.

        Args:
            weight_decay: L2 coefficient of Adam (coupled).
            unroll_steps: K, imagined steps per update.
            td_steps: n of the n-step value target.
            replay_ratio: Updates per env step (decision, summed over the tasks), counted from the
                start of learning; enforced, so that results do not depend on the machine's speed.
            num_steps_sampled_before_learning_starts: Env steps (all tasks) before the first update.
            num_random_steps: Env steps (all tasks) with uniformly random actions.
            cross_task_probability: Share of the training decisions that are another task's, of
                equal observation and action dims, in stretches of 100 decisions in the mean.
            weight_sync_interval: Updates between two weight transfers to the env runners.
            value_mixing: "variance" (paper 4.1), "age" (released code), "td" or "search".
            value_mixing_age: "age": samples older than this many transitions use the search value.
            value_mixing_start: "age": updates before any search value is used.
            variance_window_decay: "variance": decay of the running range per update.
            policy_loss: "best_action" (eq. 6) or "distribution" (cross-entropy to softmax(g)).
            reward_loss_coeff: Weight of the reward cross-entropy.
            value_loss_coeff: Weight of the value cross-entropy.
            policy_loss_coeff: Weight of the policy loss.
            temporal_consistency_coeff: Weight of the SimSiam loss.
            path_consistency_coeff: Weight of path consistency (eq. 8); 0 switches it off.
            entropy_coeff: Entropy bonus; negative minimises entropy, as the released code does.
            squashed_entropy: Take the entropy of the actions, whose bonus keeps the mean from
                saturating, instead of the entropy before tanh, which does not depend on it.
            target_tau: EMA step of the target network, in (0, 1].
            target_period: Updates between two EMA steps.
            reanalyze_ratio: Share of each batch that is searched anew.
            replayed_candidate: The action that was taken in a replayed state, by whatever policy,
                is one of its candidates when it is searched anew.
            train_precision: "float32", "bfloat16" autocast of the unroll, or "auto": bfloat16 where
                the device has it natively.
            max_consecutive_nonfinite_updates: An update with a non-finite loss or gradient is
                skipped and counted (`skipped_updates`); so many in a row end the training with an
                error that names the loss terms and tasks.
            **kwargs: Settings of `AlgorithmConfig.training`.
        """
        own = {k: v for k, v in locals().items() if k not in ("self", "kwargs", "__class__")}
        super().training(**kwargs)
        return self._set(own)

    def world_model(
        self,
        *,
        latent_dim: int = NotProvided,
        embedding_dim: int = NotProvided,
        action_embedding_dim: int = NotProvided,
        num_blocks: int = NotProvided,
        num_value_heads: int = NotProvided,
        head_dim: int = NotProvided,
        projection_dim: int = NotProvided,
        num_bins: int = NotProvided,
        reward_support: tuple[float, float] = NotProvided,
        value_support: tuple[float, float] = NotProvided,
        log_std_min: float = NotProvided,
        log_std_max: float = NotProvided,
        task_embedding: Sequence[str] = NotProvided,
    ) -> EZMConfig:
        """Set the sizes of the world model (Table 4).

        Args:
            latent_dim: H.
            embedding_dim: E.
            action_embedding_dim: Width of the reward model's action encoder.
            num_blocks: Residual blocks per trunk.
            num_value_heads: V.
            head_dim: Hidden width of the reward, value and policy heads.
            projection_dim: Hidden width of the SimSiam projector and predictor.
            num_bins: Q, atoms of the categorical supports.
            reward_support: Range of representable rewards per decision; overflow is counted.
            value_support: Range of representable discounted returns.
            log_std_min: Lower bound of the policy's log standard deviation.
            log_std_max: Upper bound; an untrained policy sits in the middle of the two.
            task_embedding: Where the embedding enters: any of "rep", "dyn", "rew", "vp".
        """
        return self._set({k: v for k, v in locals().items() if k != "self"})

    def search(
        self,
        *,
        num_simulations: int = NotProvided,
        num_candidates: int = NotProvided,
        policy_candidates: int = NotProvided,
        wide_std_factor: float = NotProvided,
        root_prior: str = NotProvided,
        use_gumbel_noise: bool = NotProvided,
        minmax_delta: float = NotProvided,
        wide_candidates_at_eval: bool = NotProvided,
        num_simulations_at_eval: int | None = NotProvided,
        value_reduction: str = NotProvided,
        value_clip_min: float | None = NotProvided,
        inference_precision: str = NotProvided,
    ) -> EZMConfig:
        """Set the Gumbel search (section 3.2).

        Args:
            num_simulations: S.
            num_candidates: N, sampled root actions.
            policy_candidates: How many of them have the policy's own standard deviation.
            wide_std_factor: Inflation of the standard deviation of the others.
            root_prior: "uniform" or "policy".
            use_gumbel_noise: Gumbel noise on the root scores.
            minmax_delta: Smallest range, in units of return, that the Q of a search are stretched
                from to [0, 1]: differences far below it do not count. With the default even noise
                of a hundredth is preferred as if it were everything.
            wide_candidates_at_eval: Keep the inflated candidates in evaluation.
            num_simulations_at_eval: S in evaluation; 0 acts with the policy mean; None: as above.
            value_reduction: "min2" (minimum of two random heads) or "mean".
            value_clip_min: Lower bound of predicted values; None for no bound.
            inference_precision: "float32", "bfloat16" or "float16" autocast of the search, or
                "auto": bfloat16 where the device has it natively.
        """
        return self._set({k: v for k, v in locals().items() if k != "self"})

    def replay(
        self,
        *,
        capacity_per_task: int = NotProvided,
        independent_replay: bool = NotProvided,
        priority_alpha: float = NotProvided,
        priority_beta: float = NotProvided,
        min_importance_weight: float = NotProvided,
        max_replay_bytes: int | None = NotProvided,
        store_buffer_in_checkpoints: bool = NotProvided,
        num_replay_actors: int = NotProvided,
        num_cpus_per_replay_actor: float = NotProvided,
    ) -> EZMConfig:
        """Set the replay buffer (section 4.2).

        Args:
            capacity_per_task: Transitions kept per task.
            independent_replay: One ring per task (IER); False: one shared ring.
            priority_alpha: Exponent of the priorities.
            priority_beta: Exponent of the importance weights.
            min_importance_weight: Floor of the max-normalized importance weights.
            max_replay_bytes: Budget in bytes; training refuses to start above it. None: no limit.
            store_buffer_in_checkpoints: Write the buffer into checkpoints.
            num_replay_actors: Processes that hold the rings of a group of tasks each, possibly on
                other machines; 0: all are in the algorithm's process.
            num_cpus_per_replay_actor: Ray's CPUs of each.
        """
        return self._set({k: v for k, v in locals().items() if k != "self"})

    def asynchrony(
        self,
        asynchronous: bool = NotProvided,
        *,
        num_reanalyze_workers: int = NotProvided,
        num_cpus_per_reanalyze_worker: float = NotProvided,
        num_gpus_per_reanalyze_worker: float = NotProvided,
        max_queued_batches: int = NotProvided,
        max_updates_behind: int = NotProvided,
        max_weight_age: int = NotProvided,
        weight_transfer_dtype: str = NotProvided,
    ) -> EZMConfig:
        """Collect, reanalyze and learn at the same time (Figure 2(D)) or one after the other.

        The replay ratio is enforced in both. Asynchronous training needs processes:
        `.env_runners(num_env_runners=...)` and `.learners(num_learners=...)` of at least 1.

        Args:
            asynchronous: At the same time.
            num_reanalyze_workers: Processes that make the targets; 0: the learners do.
            num_cpus_per_reanalyze_worker: Ray's CPUs of each.
            num_gpus_per_reanalyze_worker: Ray's GPUs of each; a fraction shares one.
            max_queued_batches: Batches sampled and not yet learned from; bounds the age of targets
                and priorities.
            max_updates_behind: Env runners pause where more updates are due than this.
            max_weight_age: Updates that the learners may make while an env runner acts with the
                weights from before them; then they wait for it.
            weight_transfer_dtype: "float32", or "bfloat16": matrices travel to env runners and
                reanalyze workers at half their size.
        """
        return self._set({k: v for k, v in locals().items() if k != "self"})

    @override(AlgorithmConfig)
    def build_env_to_module_connector(
        self, env: Any = None, spaces: Any = None, device: Any = None
    ) -> ConnectorV2:
        pipeline = super().build_env_to_module_connector(env, spaces, device)
        if self.cross_task_probability:
            pipeline.prepend(CrossTaskExploration(self.get_task_set(), self.cross_task_probability))
        return pipeline

    def paper(self) -> EZMConfig:
        """Every choice of ALGORITHM.md's "paper" column at once."""
        self.training(value_mixing="variance", entropy_coeff=0.0)
        self.search(use_gumbel_noise=True, root_prior="policy", value_reduction="mean")
        return self

    def released(self) -> EZMConfig:
        """Every choice of the released code that has a switch, at once; call it after `tasks()`.

        The released entropy term is 5e-3 times the padded action dim, with the sign that minimises.
        Not included: its learning-rate drop (x0.1 at 90 % of training; `lr` takes a schedule) and
        its training episodes of 500 steps (`max_episode_steps` of the tasks).
        Not reproduced, because they are defects or hardware-bound: mislabelled warm-up actions,
        dropped last blocks, targets from unrelated random initialisations, noise in dead actions.
        """
        self.env_config = {**self.env_config, "termination": "ignore"}
        action_dim = self.get_task_set().action_dim
        self.training(value_mixing="age", entropy_coeff=-5e-3 * action_dim, squashed_entropy=False)
        self.search(
            use_gumbel_noise=False,
            root_prior="uniform",
            value_reduction="min2",
            value_clip_min=0.0,
            wide_candidates_at_eval=True,
        )
        return self.evaluation(evaluation_duration=1)

    def get_task_set(self) -> TaskSet:
        """The resolved tasks with their padded sizes.

        The first call builds an environment of each task, see `TaskSpec.dims`. Tasks that
        `env_config` has by name are replaced there by their specs, so that the sizes travel on.

        Raises:
            ValueError: If no tasks are set.
        """
        tasks = task_set(self.env_config["tasks"])
        self.env_config["tasks"] = list(tasks.specs)
        return tasks

    def replay_bytes(self) -> int:
        """Memory of the full replay buffer [bytes]."""
        tasks = self.get_task_set()
        return required_bytes(
            tasks.num_tasks,
            self.capacity_per_task,
            tasks.obs_dim,
            tasks.action_dim,
            self.independent_replay,
        )

    def describe(self) -> str:
        """One line for the start of a run: the tasks, and replay memory against its budget."""
        tasks = self.get_task_set()
        needed = self.replay_bytes()
        budget = (
            "no limit"
            if self.max_replay_bytes is None
            else f"{self.max_replay_bytes / 2**30:.1f} GiB"
        )
        return (
            f"{tasks.num_tasks} tasks (padded to {tasks.obs_dim} observation and "
            f"{tasks.action_dim} action dims); replay of {self.capacity_per_task:,} observations "
            f"per task, up to {needed / 2**30:.2f} GiB (budget: {budget})"
        )

    @override(AlgorithmConfig)
    def validate(self) -> None:
        super().validate()
        check_settings(self, self._value_error)

    @override(AlgorithmConfig)
    def get_default_rl_module_spec(self) -> RLModuleSpec:
        from rllib_ezm.algorithm.rl_module import EZMTorchRLModule

        return RLModuleSpec(module_class=EZMTorchRLModule)

    @override(AlgorithmConfig)
    def get_default_learner_class(self) -> type:
        from rllib_ezm.algorithm.learner import EZMTorchLearner

        return EZMTorchLearner

    @property
    @override(AlgorithmConfig)
    def _model_config_auto_includes(self) -> dict[str, Any]:
        tasks = self.get_task_set()
        search = {
            "num_simulations": self.num_simulations,
            "num_candidates": self.num_candidates,
            "policy_candidates": self.policy_candidates,
            "wide_std_factor": self.wide_std_factor,
            "root_prior": self.root_prior,
            "use_gumbel_noise": self.use_gumbel_noise,
            "minmax_delta": self.minmax_delta,
            "discount": self.gamma,
        }
        evaluation_search = search | {
            "use_gumbel_noise": False,
            "wide_candidates": self.wide_candidates_at_eval,
        }
        if self.num_simulations_at_eval is not None:
            evaluation_search["num_simulations"] = self.num_simulations_at_eval
        return super()._model_config_auto_includes | {
            "obs_dims": list(tasks.obs_dims),
            "action_dims": list(tasks.action_dims),
            "world_model": {
                "latent_dim": self.latent_dim,
                "embedding_dim": self.embedding_dim,
                "action_embedding_dim": self.action_embedding_dim,
                "num_blocks": self.num_blocks,
                "num_value_heads": self.num_value_heads,
                "head_dim": self.head_dim,
                "projection_dim": self.projection_dim,
                "num_bins": self.num_bins,
                "reward_support": tuple(self.reward_support),
                "value_support": tuple(self.value_support),
                "log_std_min": self.log_std_min,
                "log_std_max": self.log_std_max,
                "task_embedding": tuple(self.task_embedding),
            },
            "search": search,
            "evaluation_search": evaluation_search,
            "unroll_steps": self.unroll_steps,
            "random_steps": self.num_random_steps,
            "variance_window_decay": self.variance_window_decay,
            "value_reduction": self.value_reduction,
            "value_clip_min": self.value_clip_min,
            "inference_precision": self.inference_precision,
            "train_precision": self.train_precision,
        }

    def _set(self, values: dict[str, Any]) -> EZMConfig:
        for name, value in values.items():
            if value is not NotProvided:
                setattr(self, name, value)
        return self
