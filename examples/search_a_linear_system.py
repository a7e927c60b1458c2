"""The search with a model of your own: x' = x + 0.999 a, reward -x'^2, whose best plan is known.

python examples/search_a_linear_system.py
"""

import time

import torch

from rllib_ezm.search import RootOutput, SearchSettings, StepOutput, gumbel_search

DISCOUNT = 0.9


class LinearSystem:
    """Two dimensions, each moved towards 0 as far as the bounds of the actions allow."""

    def value(self, x: torch.Tensor) -> torch.Tensor:
        """Return of the best plan from x [M, 2]."""
        steps = torch.arange(1, 20)[:, None, None]
        rest = (x.abs() - 0.999 * steps).clamp(min=0.0).square().sum(dim=-1)
        return -(DISCOUNT ** (steps[..., 0] - 1.0) * rest).sum(dim=0)

    def step(self, x: torch.Tensor, action: torch.Tensor, task_ids: torch.Tensor) -> StepOutput:
        """The next state, what `policy` needs there, reward, value."""
        after = x + action
        return StepOutput(after, after, -after.square().sum(dim=-1), self.value(after))

    def policy(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log standard deviation before tanh: it knows nothing."""
        return torch.zeros_like(features), torch.zeros_like(features)


torch.manual_seed(0)
model, x = LinearSystem(), 4.0 * torch.rand(256, 2) - 2.0
best = (-x).clamp(-0.999, 0.999)
task_ids, mask = torch.zeros(256, dtype=torch.long), torch.ones(256, 2)
for simulations, candidates, refined in ((4, 4, 0), (32, 16, 0), (256, 128, 0), (4, 4, 4)):
    settings = SearchSettings(
        num_simulations=simulations,
        num_candidates=candidates,
        policy_candidates=candidates,
        refined_candidates=refined,
        refinement_steps=4,
        refinement_size=0.4,
        discount=DISCOUNT,
    )
    root = RootOutput(x, model.value(x), *model.policy(x))
    start = time.perf_counter()
    found = gumbel_search(model, root, task_ids, mask, settings)
    milliseconds = 1e3 * (time.perf_counter() - start)
    error = (found.action - best).abs().mean()
    print(
        f"{simulations:3} simulations of {candidates:3} candidates, {refined} refined: "
        f"{error:.3f} from the best action, {milliseconds:.1f} ms for 256 states"
    )
