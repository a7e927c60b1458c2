"""Losses and targets of EZ-M, torch only: one pure function per equation."""

from rllib_ezm.losses.total import LossWeights, Targets, loss_terms, total_loss

__all__ = ["LossWeights", "Targets", "loss_terms", "total_loss"]
