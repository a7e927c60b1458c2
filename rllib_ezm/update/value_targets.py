"""Value targets of replayed segments and their masks (section 4.1, arXiv:2603.01452).

Shapes: `B` batch, `K` unroll steps, `n` TD steps, `T` tasks. A segment holds the states
`t .. t+K+n`; `step_mask[b, i]` is 1 iff the transition from state `i` to `i+1` exists, so the
episode's last state in the segment has index `length = step_mask.sum(1)`.
"""

from __future__ import annotations

import torch


def td_targets(
    rewards: torch.Tensor,
    step_mask: torch.Tensor,
    terminal: torch.Tensor,
    bootstrap_values: torch.Tensor,
    *,
    discount: float,
    unroll_steps: int,
    td_steps: int,
) -> torch.Tensor:
    """n-step value targets `z_s = sum_{i<n} gamma^i r_{s+i} + gamma^n v(o_{s+n})`.

    The sum stops at the episode's end; there the bootstrap is 0 after a termination and the value
    of the final observation after a truncation.

    Args:
        rewards: [B, K+n], 0 where no transition exists.
        step_mask: [B, K+n].
        terminal: [B], 1 iff the segment ends in a true termination.
        bootstrap_values: Target-network values of the states [B, K+n+1].
        discount: gamma per decision.
        unroll_steps: K.
        td_steps: n.

    Returns:
        z [B, K+1]. Entries of states past the end are meaningless: mask them.
    """
    length = step_mask.sum(dim=1).long()
    start = torch.arange(unroll_steps + 1, device=rewards.device)
    masked_rewards = rewards * step_mask
    total = torch.zeros(rewards.shape[0], unroll_steps + 1, device=rewards.device)
    for i in range(td_steps):
        total = total + discount**i * masked_rewards[:, i : i + unroll_steps + 1]
    end = torch.minimum((start + td_steps).expand(len(rewards), -1), length[:, None])
    steps = (end - start).clamp(min=0)
    alive = 1.0 - terminal.float()[:, None] * (end == length[:, None])
    return total + discount ** steps.float() * alive * bootstrap_values.gather(1, end)


def state_masks(
    step_mask: torch.Tensor, terminal: torch.Tensor, unroll_steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which unrolled states carry a policy and a value target.

    Policy: states with a transition. Value: those, and a terminal state itself (target 0).

    Args:
        step_mask: [B, K+n].
        terminal: [B].
        unroll_steps: K.

    Returns:
        Policy mask [B, K+1] and value mask [B, K+1], float.
    """
    policy_mask = step_mask[:, : unroll_steps + 1]
    length = step_mask.sum(dim=1, keepdim=True)
    index = torch.arange(unroll_steps + 1, device=step_mask.device)
    is_terminal_state = terminal.float()[:, None] * (index == length).float()
    return policy_mask, policy_mask + is_terminal_state


def alive_mask(step_mask: torch.Tensor, terminal: torch.Tensor, unroll_steps: int) -> torch.Tensor:
    """0 where the state after a transition is terminal, else 1; [B, K+n], [B] -> [B, K]."""
    length = step_mask.sum(dim=1, keepdim=True)
    next_index = torch.arange(1, unroll_steps + 1, device=step_mask.device)
    return 1.0 - terminal.float()[:, None] * (next_index == length).float()


def variance_mixing_weight(
    variance: torch.Tensor, low: torch.Tensor, high: torch.Tensor
) -> torch.Tensor:
    """`alpha = (Var - Var_min) / (Var_max - Var_min)` in [0, 1]; all shapes broadcast (4.1)."""
    return ((variance - low) / (high - low).clamp(min=1e-8)).clamp(0.0, 1.0)


def age_mixing_weight(age: torch.Tensor, threshold: int) -> torch.Tensor:
    """1 (the TD value) for samples younger than `threshold` transitions of their task, else 0."""
    return (age < threshold).float()


def mix_values(alpha: torch.Tensor, td: torch.Tensor, search: torch.Tensor) -> torch.Tensor:
    """Mixed value target `alpha z + (1 - alpha) v_search` (section 4.1)."""
    return alpha * td + (1.0 - alpha) * search
