"""Settings of training: what an update computes, and how often there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rllib_ezm.models.settings import SUB_NETWORKS, SubNetwork
from rllib_ezm.update.compiled import CompileMode
from rllib_ezm.utils.settings import Schedule, SettingsGroup, setting

OFF = "0 switches it off"


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(SettingsGroup):
    """Optimizer, targets, losses and schedule of the updates."""

    gamma: float = setting(0.99, "Discount of one decision.", above=0, below=1)
    lr: float | Schedule = setting(1e-4, "Learning rate of Adam.", above=0)
    train_batch_size_per_learner: int = setting(
        512, "B, replay segments per update and learner.", at_least=1
    )
    grad_clip: float | None = setting(
        5.0, "Largest global norm of the gradient; None: not clipped.", above=0
    )
    weight_decay: float = setting(2e-5, "L2 coefficient of Adam (coupled).", at_least=0, note=OFF)
    unroll_steps: int = setting(5, "K, imagined steps per update.", at_least=1)
    td_steps: int = setting(5, "n of the n-step value target.", at_least=1)
    replay_ratio: float = setting(
        0.3,
        "Updates per env step (decision, summed over the tasks), counted from the start of "
        "learning; enforced, so that results do not depend on the machine's speed.",
        above=0,
    )
    num_steps_sampled_before_learning_starts: int = setting(
        1000, "Env steps (all tasks) before the first update.", at_least=0
    )
    num_random_steps: int = setting(
        1000, "Env steps (all tasks) with uniformly random actions.", at_least=0
    )
    cross_task_probability: float = setting(
        0.0,
        "Share of the training decisions that are another task's, of equal observation and action "
        "dims, in stretches of 100 decisions in the mean.",
        at_least=0,
        at_most=1,
    )
    weight_sync_interval: int = setting(
        5, "Updates between two weight transfers to the env runners.", at_least=1
    )
    value_mixing: Literal["variance", "age", "td", "search"] = setting(
        "variance",
        "Value target of a sample: the search's or the n-step one, chosen by the "
        '"variance" of the value heads (paper 4.1) or by its "age" (released code), or always '
        'the n-step one ("td") or always the search\'s ("search").',
    )
    value_mixing_age: int = setting(
        200_000,
        'With "age": samples older than this many transitions use the search value.',
        at_least=0,
    )
    value_mixing_start: int = setting(
        50_000, 'With "age": updates before any search value is used.', at_least=0
    )
    variance_window_decay: float = setting(
        0.999, 'With "variance": decay of the running range per update.', above=0, below=1
    )
    policy_loss: Literal["best_action", "distribution"] = setting(
        "best_action",
        '"best_action": its log-density (eq. 6); "distribution": cross-entropy from softmax(g).',
    )
    latent_gradient_scale: float = setting(
        0.5,
        "Factor on the gradient into each predicted latent of the unroll.",
        at_least=0,
        at_most=1,
    )
    reward_loss_coeff: float = setting(
        1.0, "Weight of the reward cross-entropy.", at_least=0, note=OFF
    )
    value_loss_coeff: float = setting(
        0.25, "Weight of the value cross-entropy.", at_least=0, note=OFF
    )
    policy_loss_coeff: float = setting(1.0, "Weight of the policy loss.", at_least=0, note=OFF)
    temporal_consistency_coeff: float = setting(
        5.0, "Weight of the SimSiam loss.", at_least=0, note=OFF
    )
    path_consistency_coeff: float = setting(
        0.25, "Weight of path consistency (eq. 8).", at_least=0, note=OFF
    )
    entropy_coeff: float = setting(
        0.0, "Entropy bonus; negative minimizes entropy, as the released code does."
    )
    squashed_entropy: bool = setting(
        False,
        "Take the entropy of the actions, whose bonus keeps the mean from saturating, instead of "
        "the entropy before tanh, which does not depend on it.",
    )
    target_tau: float = setting(
        0.001, "EMA step of the target network.", above=0, at_most=1, note="1 copies the weights"
    )
    target_period: int = setting(1, "Updates between two EMA steps.", at_least=1)
    reanalyze_ratio: float = setting(
        1.0,
        "Share of the states of each batch that are searched anew, those searched the longest time "
        "ago first; what is found is stored, and used for the others.",
        at_least=0,
        at_most=1,
    )
    replayed_candidate: bool = setting(
        False,
        "The action that was taken in a replayed state, by whatever policy, is one of its "
        "candidates when it is searched anew.",
    )
    train_precision: Literal["float32", "bfloat16", "auto"] = setting(
        "float32",
        'Autocast of the unroll; "auto": bfloat16 where the device has it natively.',
        note="float16 training would need loss scaling",
    )
    compile: CompileMode = setting(
        "off",
        "Run targets, forward and backward pass of an update as compiled graphs (`torch.compile`). "
        "Compiling takes minutes; where it fails, a warning says so and they run as they are.",
    )
    capture: bool = setting(
        False,
        "Record an update on a CUDA device and replay it, without Python between its kernels; one "
        "learner only. Elsewhere nothing is recorded.",
    )
    metrics_interval: int = setting(
        1,
        "Updates between two readings of the metrics from the device. Means and sums are over all "
        "of them; non-finite updates are noticed then.",
        at_least=1,
    )
    max_consecutive_nonfinite_updates: int = setting(
        10,
        "An update with a non-finite loss or gradient is skipped and counted (`skipped_updates`); "
        "this many in a row end the training with an error that names the loss terms and tasks.",
        at_least=1,
    )
    frozen_networks: Sequence[SubNetwork] = setting(
        (),
        "Sub-networks of the world model whose parameters get no gradient steps and no weight "
        "decay. Running statistics (BatchNorm, observation normalizer) move all the same.",
        note="not all of them",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if set(self.frozen_networks) == set(SUB_NETWORKS):
            raise ValueError(
                f"frozen_networks={tuple(self.frozen_networks)!r} leaves nothing to learn: leave "
                "one out."
            )
