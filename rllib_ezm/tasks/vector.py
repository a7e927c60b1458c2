"""`SlotVector`: the slots of an env runner as one vector environment."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import SyncVectorEnv


class SlotVector(SyncVectorEnv):
    """Steps its environments one after the other; the infos are a list of theirs, as they are.

    Gymnasium's turns each key of each step into an array over the environments, which RLlib then
    takes apart again: for infos with a dozen keys that costs more than all the rest of a step.
    """

    def reset(self, **kwargs: Any) -> Any:
        """Observations and infos, a list with one for each environment."""
        result: Any = super().reset(**kwargs)
        return result[0], self._listed(result[1])

    def step(self, actions: Any) -> Any:
        """Observations, rewards, terminations, truncations and infos, a list."""
        result: Any = super().step(actions)
        return *result[:-1], self._listed(result[-1])

    def _listed(self, infos: dict[Any, Any]) -> list[dict[str, Any]]:
        return [infos.get(index, {}) for index in range(self.num_envs)]

    def _add_info(
        self, vector_infos: dict[Any, Any], env_info: dict[str, Any], env_num: int
    ) -> dict[Any, Any]:
        """Keeps the info of each environment by its position (overrides a hook of gymnasium's)."""
        vector_infos[env_num] = env_info
        return vector_infos
