from __future__ import annotations

import torch
from helpers.tiny_model import OBS_DIM, tiny_model

from rllib_ezm.update.target_network import TargetNetwork


def test_target_update_by_hand():
    target, online = tiny_model(seed=0), tiny_model(seed=1)
    with torch.no_grad():
        target.representation[0].linear.bias.fill_(1.0)
        online.representation[0].linear.bias.fill_(5.0)
        target.value_policy_model.value_heads.first_norm.running_mean.fill_(2.0)
        online.value_policy_model.value_heads.first_norm.running_mean.fill_(-2.0)
    TargetNetwork(target, online, 0.25).follow()
    # 0.75 * 1 + 0.25 * 5 = 2 and 0.75 * 2 - 0.25 * 2 = 1.
    assert (target.representation[0].linear.bias == 2.0).all()
    assert (target.value_policy_model.value_heads.first_norm.running_mean == 1.0).all()


def test_the_observation_normalizer_and_counters_are_copied_as_they_are():
    target, online = tiny_model(seed=0), tiny_model(seed=1)
    online.normalizer.update(torch.randn(8, OBS_DIM), torch.arange(8) % 2)
    online.value_policy_model.value_heads.first_norm.num_batches_tracked.fill_(9)
    TargetNetwork(target, online, 0.01).follow()
    for name in ("mean", "variance", "count"):
        assert torch.equal(getattr(target.normalizer, name), getattr(online.normalizer, name))
    assert target.value_policy_model.value_heads.first_norm.num_batches_tracked == 9


def test_tau_one_copies_and_the_online_network_never_changes():
    target, online = tiny_model(seed=0), tiny_model(seed=1)
    before = {name: value.clone() for name, value in online.state_dict().items()}
    TargetNetwork(target, online, 1.0).follow()
    for name, value in target.state_dict().items():
        torch.testing.assert_close(value, before[name])
        assert torch.equal(online.state_dict()[name], before[name])


def test_repeated_updates_decay_exponentially():
    target, online = tiny_model(seed=0), tiny_model(seed=1)
    start = {name: value.clone() for name, value in target.state_dict().items()}
    network = TargetNetwork(target, online, 0.1)
    for _ in range(10):
        network.follow()
    for name, parameter in online.named_parameters():
        expected = parameter + 0.9**10 * (start[name] - parameter)
        torch.testing.assert_close(target.state_dict()[name], expected.detach())
