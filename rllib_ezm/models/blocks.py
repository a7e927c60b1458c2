"""Building blocks of the world model (Table 4, arXiv:2603.01452).

Shapes: `M` rows (any batch), `V` value heads. Blocks are plain modules: no task ids, no masks.
Heads with BatchNorm take `steps`: how many unroll steps the rows hold, see `StepBatchNorm`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from rllib_ezm.models.step_batch_norm import RootStepBatchNorm, StepBatchNorm


class ResidualBlock(nn.Module):
    """Pre-norm residual block `x + W2 relu(W1 LN(x))`; [M, dim] -> [M, dim]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the block to [M, dim]."""
        return x + self.project(torch.relu(self.expand(self.norm(x))))


def residual_stack(dim: int, num_blocks: int) -> nn.Sequential:
    """`num_blocks` residual blocks of width `dim`."""
    return nn.Sequential(*(ResidualBlock(dim) for _ in range(num_blocks)))


class TanhEncoder(nn.Module):
    """`tanh(LN(Linear(x)))`; [M, in_dim] -> [M, out_dim]."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, out_dim)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Encode [M, in_dim]."""
        return torch.tanh(self.norm(self.linear(x)))


class TransitionTrunk(nn.Module):
    """Latent transition: `h + W2 relu(W1 LN([h, context]))`, then residual blocks.

    [M, latent_dim], [M, context_dim] -> [M, latent_dim]. Of the context, the last `num_added` dims
    bypass the LayerNorm: they were added to a trained trunk (see `growth.py`), and rows in which
    they are 0 give what they gave before.
    """

    def __init__(
        self, latent_dim: int, context_dim: int, num_blocks: int, num_added: int = 0
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(latent_dim + context_dim - num_added)
        self.mix = nn.Linear(latent_dim + context_dim, latent_dim)
        self.project = nn.Linear(latent_dim, latent_dim)
        self.blocks = residual_stack(latent_dim, num_blocks)

    def forward(self, latent: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Next latents of [M, latent_dim] given [M, context_dim]."""
        joint = torch.cat([latent, context], dim=-1)
        mixed = self.mix(norm_of_first(joint, self.norm.normalized_shape[0], self.norm))
        out: torch.Tensor = self.blocks(latent + self.project(torch.relu(mixed)))
        return out


def norm_of_first(
    x: torch.Tensor, width: int, norm: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """`norm` of the first `width` dims of [M, dim], with the others as they are behind them."""
    if width == x.shape[-1]:
        return norm(x)
    return torch.cat([norm(x[..., :width]), x[..., width:]], dim=-1)


class BatchNormHead(nn.Module):
    """`(Linear, BatchNorm, ReLU) x 2, Linear`; [M, in_dim] -> [M, out_dim].

    `zero_init` sets the last layer's weight and bias to 0.
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int,
        out_dim: int,
        *,
        zero_init: bool,
        norm: type[StepBatchNorm] = RootStepBatchNorm,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(in_dim, hidden_dim),
            norm(hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
            norm(hidden_dim),
            nn.ReLU(),
        )
        self.output = nn.Linear(hidden_dim, out_dim)
        if zero_init:
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)

    def forward(self, x: torch.Tensor, steps: int = 1, root: bool = False) -> torch.Tensor:
        """Outputs of [M, in_dim]; BatchNorm uses batch or running statistics by mode."""
        for layer in self.layers:
            x = layer(x, steps, root) if isinstance(layer, StepBatchNorm) else layer(x)
        out: torch.Tensor = self.output(x)
        return out


class EnsembleLinear(nn.Module):
    """`V` independent linear layers in one batched product; [V, M, in] -> [V, M, out].

    Initialised like `nn.Linear`: uniform in +-1/sqrt(in) for weight and bias.
    """

    def __init__(self, num_heads: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        bound = in_dim**-0.5
        self.weight = nn.Parameter(torch.empty(num_heads, in_dim, out_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_heads, 1, out_dim).uniform_(-bound, bound))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One product per head of [V, M, in]."""
        return torch.baddbmm(self.bias.to(x.dtype), x, self.weight.to(x.dtype))


class EnsembleBatchNormHead(nn.Module):
    """`V` independent `BatchNormHead`s evaluated together; [M, in_dim] -> [V, M, out_dim]."""

    def __init__(self, num_heads: int, in_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.num_heads, self.hidden_dim = num_heads, hidden_dim
        # The first layer's input is shared, so V linear layers are one wide linear layer.
        self.first = nn.Linear(in_dim, num_heads * hidden_dim)
        self.first_norm = RootStepBatchNorm(num_heads * hidden_dim)
        self.second = EnsembleLinear(num_heads, hidden_dim, hidden_dim)
        self.second_norm = RootStepBatchNorm(num_heads * hidden_dim)
        self.output = EnsembleLinear(num_heads, hidden_dim, out_dim)

    def forward(self, x: torch.Tensor, steps: int = 1, root: bool = False) -> torch.Tensor:
        """Outputs of every head for the same rows [M, in_dim]."""
        rows = x.shape[0]
        x = torch.relu(self.first_norm(self.first(x), steps, root))
        x = self.second(x.view(rows, self.num_heads, self.hidden_dim).transpose(0, 1))
        x = x.transpose(0, 1).reshape(rows, self.num_heads * self.hidden_dim)
        x = torch.relu(self.second_norm(x, steps, root))
        out: torch.Tensor = self.output(
            x.view(rows, self.num_heads, self.hidden_dim).transpose(0, 1)
        )
        return out


class Projector(nn.Sequential):
    """SimSiam projector `in -> hidden -> hidden -> in`, LayerNorm after each layer."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__(
            nn.Linear(dim, hidden_dim),
            nn.LayerNorm(hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.LayerNorm(hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, dim),
            nn.LayerNorm(dim),
        )


class Predictor(nn.Sequential):
    """SimSiam predictor `in -> hidden -> in`."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__(
            nn.Linear(dim, hidden_dim),
            nn.LayerNorm(hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, dim),
        )
