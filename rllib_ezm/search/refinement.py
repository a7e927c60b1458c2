"""Root candidates moved uphill in the model's own estimate of their return.

A handful of sampled actions rarely holds a much better one where there are many action dimensions;
the gradient of the model points to one (cf. Dream-MPC, and policies learned by pathwise
derivatives). It is not part of EZ-M. Legend: B roots, R refined candidates, A padded action dim.
"""

from __future__ import annotations

import torch

from rllib_ezm.models.policy_distribution import MAX_ACTION
from rllib_ezm.search.settings import SearchSettings
from rllib_ezm.search.types import RootOutput, SearchModel


def refine(
    model: SearchModel,
    root: RootOutput,
    task_ids: torch.Tensor,
    action_mask: torch.Tensor,
    settings: SearchSettings,
    actions: torch.Tensor,
) -> torch.Tensor:
    """Move the first `refined_candidates` by gradient ascent on `r(h, a) + gamma v(G(h, a))`.

    Each step is taken before tanh and is as long as `refinement_size` standard deviations of the
    policy in a dimension (root mean square over the real dimensions), whatever the scale of the
    values.

    Args:
        model: The world model.
        root: Its output at the roots.
        task_ids: [B].
        action_mask: [B, A].
        settings: Sizes and constants.
        actions: All candidates [B, N, A], of which the others stay.

    Returns:
        Candidates [B, N, A].
    """
    count = settings.refined_candidates
    chosen, others = actions[:, :count], actions[:, count:]
    mask, std = action_mask.unsqueeze(1), root.log_std.exp().unsqueeze(1)
    latent = root.latent.unsqueeze(1).expand(-1, count, -1).flatten(0, 1)
    rows = task_ids.unsqueeze(-1).expand(-1, count).flatten()
    before_tanh = torch.atanh(chosen.clamp(-MAX_ACTION, MAX_ACTION))
    num_dims = mask.sum(dim=-1, keepdim=True).clamp(min=1.0)
    for _ in range(settings.refinement_steps):
        with torch.enable_grad():
            point = before_tanh.detach().requires_grad_()
            action = torch.tanh(point) * mask
            step = model.step(latent, action.flatten(0, 1), rows)
            estimate = (step.reward + settings.discount * step.value).sum()
            (gradient,) = torch.autograd.grad(estimate, point)
        uphill = gradient.to(before_tanh.dtype) * std * mask
        norm = (uphill.square().sum(dim=-1, keepdim=True) / num_dims).sqrt()
        direction = uphill / norm.clamp(min=1e-12)
        before_tanh = before_tanh + settings.refinement_size * std * direction
    moved = torch.tanh(before_tanh).clamp(-MAX_ACTION, MAX_ACTION) * mask
    return torch.cat([moved.detach(), others], dim=1)
