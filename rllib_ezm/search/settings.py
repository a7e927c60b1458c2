"""Settings of one search, and of all that plan with the world model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from rllib_ezm.models.precision import Precision
from rllib_ezm.utils.settings import SettingsGroup, setting, settings_of

RootPrior = Literal["uniform", "policy"]
ValueReduction = Literal["random_pair", "min", "mean"]
VALUE_REDUCTIONS: tuple[ValueReduction, ...] = get_args(ValueReduction)


@dataclass(frozen=True, kw_only=True)
class BaseSearchSettings(SettingsGroup):
    """Sizes and constants that every search shares."""

    num_simulations: int = setting(32, "S, model evaluations per root.", at_least=1)
    num_candidates: int = setting(16, "N, sampled root actions.", at_least=1)
    policy_candidates: int = setting(
        4,
        "How many of the candidates have the policy's own standard deviation.",
        at_least=0,
        note="at most num_candidates",
    )
    wide_std_factor: float = setting(
        3.0, "Inflation of the standard deviation of the other candidates.", above=0
    )
    refined_candidates: int = setting(
        0,
        "How many of the candidates, the first ones, are moved uphill by the model's gradient.",
        at_least=0,
        note="at most num_candidates; with a replayed candidate one less",
    )
    refinement_steps: int = setting(1, "Gradient steps of each refined candidate.", at_least=1)
    refinement_size: float = setting(
        0.5, "Length of such a step, in standard deviations of the policy.", above=0
    )
    root_prior: RootPrior = setting(
        "uniform",
        'Prior logits of the candidates: "uniform", or their log-density under the "policy".',
    )
    use_gumbel_noise: bool = setting(False, "Add Gumbel noise to the root scores.")
    c_visit: float = setting(
        50.0,
        "Visits added in sigma(q) = (c_visit + most visits) * c_scale * q of the completed Q.",
        at_least=0,
    )
    c_scale: float = setting(0.1, "Scale of sigma, see c_visit.", at_least=0)
    minmax_delta: float = setting(
        0.01,
        "Smallest range of the Q of a search, in units of return, that is stretched to [0, 1]; "
        "differences far below it do not count.",
        above=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.policy_candidates > self.num_candidates:
            raise ValueError(
                f"policy_candidates={self.policy_candidates}: use a number from 0 to "
                f"num_candidates={self.num_candidates}"
            )
        if self.refined_candidates > self.num_candidates:
            raise ValueError(
                f"refined_candidates={self.refined_candidates}: use a number from 0 to "
                f"num_candidates={self.num_candidates}"
            )


@dataclass(frozen=True, kw_only=True)
class SearchSettings(BaseSearchSettings):
    """Sizes and constants of one search.

    Raises:
        ValueError: If a setting is out of range.
    """

    wide_candidates: bool = setting(
        True, "False gives every candidate and child the policy's own standard deviation."
    )
    discount: float = setting(0.99, "Discount of one step.", at_least=0, at_most=1)


@dataclass(frozen=True, kw_only=True)
class PlanningSettings(BaseSearchSettings):
    """The searches of training and evaluation, and how they read the model."""

    planner: str | type = setting(
        "gumbel",
        "Which search; a class of your own is given all settings of a search and says which of "
        "them it uses.",
        note='"gumbel" or a subclass of WorldModelPlanner',
    )
    wide_candidates_at_eval: bool = setting(False, "Keep the inflated candidates in evaluation.")
    num_simulations_at_eval: int | None = setting(
        None,
        "S in evaluation; None: num_simulations.",
        at_least=0,
        note="0 acts with the policy mean",
    )
    value_reduction: ValueReduction = setting(
        "random_pair",
        "What becomes of the value heads, in the search and in targets: the minimum of a "
        '"random_pair" of them, drawn anew for each call of the model, the "min" of all, or their '
        '"mean".',
    )
    value_clip_min: float | None = setting(None, "Lower bound of predicted values; None: no bound.")
    inference_precision: Precision = setting(
        "float32",
        'Autocast of the search; "auto": bfloat16 where the device has it natively.',
    )

    def training_search(self, discount: float) -> SearchSettings:
        """The search of acting and reanalysis."""
        values = asdict(self)
        shared = {name: values[name] for name in settings_of(BaseSearchSettings)}
        return SearchSettings(discount=discount, **shared)

    def evaluation_changes(self) -> dict[str, Any]:
        """Where the search of evaluation differs from `training_search`; 0 simulations: none."""
        changes: dict[str, Any] = {
            "use_gumbel_noise": False,
            "wide_candidates": self.wide_candidates_at_eval,
        }
        if self.num_simulations_at_eval is not None:
            changes["num_simulations"] = self.num_simulations_at_eval
        return changes


def search_settings(options: Mapping[str, Any]) -> SearchSettings | None:
    """Search settings of a dict; None (act with the policy mean) for 0 simulations."""
    return SearchSettings(**options) if options["num_simulations"] > 0 else None
