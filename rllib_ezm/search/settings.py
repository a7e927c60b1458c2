"""Sizes and constants of a search, and their checks."""

from __future__ import annotations

from dataclasses import dataclass

ROOT_PRIORS = ("uniform", "policy")


@dataclass(frozen=True)
class SearchSettings:
    """Sizes and constants of a search.

    Attributes:
        num_simulations: S, model evaluations per root.
        num_candidates: N, sampled root actions.
        policy_candidates: How many of them have the policy's own standard deviation.
        wide_std_factor: Inflation of the standard deviation of the others.
        root_prior: "uniform", or "policy" for the candidates' log-density.
        use_gumbel_noise: Add Gumbel noise to the root scores.
        wide_candidates: False gives every candidate and child the policy's own deviation.
        discount: Discount of one step.
        c_visit: Visit offset of `sigma`.
        c_scale: Scale of `sigma`.
        minmax_delta: Floor of the min-max range, in units of return.

    Raises:
        ValueError: If a setting is out of range.
    """

    num_simulations: int = 32
    num_candidates: int = 16
    policy_candidates: int = 4
    wide_std_factor: float = 3.0
    root_prior: str = "uniform"
    use_gumbel_noise: bool = False
    wide_candidates: bool = True
    discount: float = 0.99
    c_visit: float = 50.0
    c_scale: float = 0.1
    minmax_delta: float = 0.01

    def __post_init__(self) -> None:
        """Check every range."""
        if self.num_simulations < 1:
            raise ValueError(
                f"num_simulations={self.num_simulations} is not a search: use >= 1, or act with "
                "the policy mean instead of searching"
            )
        if self.num_candidates < 1:
            raise ValueError(f"num_candidates={self.num_candidates}: use >= 1")
        if not 0 <= self.policy_candidates <= self.num_candidates:
            raise ValueError(
                f"policy_candidates={self.policy_candidates}: use a number from 0 to "
                f"num_candidates={self.num_candidates}"
            )
        if self.root_prior not in ROOT_PRIORS:
            raise ValueError(f"root_prior={self.root_prior!r}: use one of {ROOT_PRIORS}")
        if not 0.0 <= self.discount <= 1.0:
            raise ValueError(f"discount={self.discount}: use a number in [0, 1]")
        for name in ("wide_std_factor", "minmax_delta"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name}={getattr(self, name)}: use a number > 0")
        for name in ("c_visit", "c_scale"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name}={getattr(self, name)}: use a number >= 0")
