"""Networks of EZ-M, torch only: world model, categorical support, policy distribution."""

from rllib_ezm.models.categorical import CategoricalSupport
from rllib_ezm.models.settings import EMBEDDING_SITES, WorldModelSettings
from rllib_ezm.models.world_model import Prediction, WorldModel, WorldModelSpec

__all__ = [
    "EMBEDDING_SITES",
    "CategoricalSupport",
    "Prediction",
    "WorldModel",
    "WorldModelSettings",
    "WorldModelSpec",
]
