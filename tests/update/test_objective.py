"""The whole objective.

Padding past an episode's end is tested on the losses given the unroll's outputs: in train mode
BatchNorm mixes all rows of a batch, so inside the networks padded rows are inputs like any other.
"""

from __future__ import annotations

import torch
from helpers.tiny_model import ACTION_MASK, random_inputs, tiny_model

from rllib_ezm.losses import head_mean_log_softmax, value_loss
from rllib_ezm.models.unroll import Unroll, unroll_world_model
from rllib_ezm.update.objective import LossWeights, loss_terms, total_loss
from rllib_ezm.update.targets import Targets
from rllib_ezm.update.value_targets import state_masks

STEPS, BATCH = 3, 6
LENGTHS = torch.tensor([4, 3, 2, 1, 4, 2])
TERMINAL = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
TERMS = ["reward", "value", "policy", "temporal_consistency", "path_consistency", "entropy"]


def make_targets(seed=3):
    """Random targets of segments that end at LENGTHS (K = 3, n = 1)."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator) * 1.8 - 0.9

    step_mask = (torch.arange(STEPS + 1) < LENGTHS[:, None]).float()
    policy_mask, value_mask = state_masks(step_mask, TERMINAL, STEPS)
    next_index = torch.arange(1, STEPS + 1)
    alive = 1.0 - TERMINAL[:, None] * (next_index == LENGTHS[:, None]).float()
    action_mask = ACTION_MASK[random_inputs(BATCH, STEPS).task_ids]
    return Targets(
        reward=uniform(STEPS, BATCH) * 5,
        value=uniform(STEPS + 1, BATCH) * 20,
        policy_mean=uniform(STEPS + 1, BATCH, 3) * action_mask,
        policy_std=uniform(STEPS + 1, BATCH, 3).abs() * action_mask,
        action_mask=action_mask,
        transition_mask=step_mask[:, :STEPS].T,
        policy_mask=policy_mask.T,
        value_mask=value_mask.T,
        alive=alive.T,
    )


def unrolled(seed=0):
    model = tiny_model(seed)
    return model, unroll_world_model(model, *random_inputs(BATCH, STEPS))


def leaves(unroll):
    return Unroll(*(x.detach().clone().requires_grad_() for x in unroll))


def test_total_loss_by_hand():
    terms = {name: torch.tensor([value]) for name, value in zip(TERMS, range(1, 7), strict=True)}
    # 1 * 1 + 0.25 * 2 + 1 * 3 + 5 * 4 + 0.25 * 5 + 0 * 6 = 25.75.
    assert total_loss(terms, LossWeights()).tolist() == [25.75]
    # 2 * 1 + 3 * 2 + 0.5 * 6 = 11.
    weights = LossWeights(2.0, 3.0, 0.0, 0.0, 0.0, entropy=0.5)
    assert total_loss(terms, weights).tolist() == [11.0]


def test_every_term_is_finite_and_per_sample():
    model, unroll = unrolled()
    terms = loss_terms(model, unroll, make_targets(), discount=0.99)
    assert list(terms) == TERMS
    for name, term in terms.items():
        assert term.shape == (BATCH,), name
        assert torch.isfinite(term).all(), name


def test_policy_loss_follows_the_targets_given():
    model, unroll = unrolled()
    targets = make_targets()
    spread = loss_terms(model, unroll, targets, discount=0.99)
    best_action = targets._replace(policy_std=torch.zeros_like(targets.policy_std))
    best = loss_terms(model, unroll, best_action, discount=0.99)
    assert not torch.equal(best["policy"], spread["policy"])


def test_positive_entropy_weight_is_a_bonus():
    model, unroll = unrolled()
    targets = make_targets()
    wider = unroll._replace(log_std=unroll.log_std + 0.5)

    def entropy_term(of):
        terms = loss_terms(model, of, targets, discount=0.99)
        return total_loss({"entropy": terms["entropy"]}, LossWeights(entropy=0.1))

    # Each valid (state, action dimension) has 0.5 nats more: the loss falls by 0.1 * 0.5 each.
    count = targets.policy_mask.sum(0) * targets.action_mask.sum(1)
    torch.testing.assert_close(entropy_term(wider), entropy_term(unroll) - 0.05 * count)


def test_path_consistency_by_hand():
    model, unroll = unrolled()
    # Uniform logits decode to 0 on symmetric supports: the target is 0 + 0.99 * 0, whose two-hot
    # code is the middle one of 11 atoms, and the cross-entropy log 11 for each transition.
    flat = unroll._replace(
        reward_logits=torch.zeros_like(unroll.reward_logits),
        value_logits=torch.zeros_like(unroll.value_logits),
    )
    terms = loss_terms(model, flat, make_targets(), discount=0.99)
    expected = torch.log(torch.tensor(11.0)) * LENGTHS.clamp(max=STEPS)
    torch.testing.assert_close(terms["path_consistency"], expected)


def test_path_consistency_gives_the_reward_network_exactly_zero_gradient():
    model, unroll = unrolled()
    term = loss_terms(model, unroll, make_targets(), discount=0.99)["path_consistency"].sum()
    rewards = [unroll.reward_logits, *model.reward_model.parameters()]
    gradients = torch.autograd.grad(term, rewards, retain_graph=True, allow_unused=True)
    assert all(gradient is None or (gradient == 0).all() for gradient in gradients)
    # It does teach the value at the start of each transition.
    (values,) = torch.autograd.grad(term, unroll.value_logits)
    assert values[:-1].abs().max() > 0
    assert (values[-1] == 0).all()


def test_path_consistency_does_not_bootstrap_into_a_terminal_state():
    model, unroll = unrolled()
    targets = make_targets()
    changed = unroll.value_logits.clone()
    changed[1:] = changed[1:].flip(-1)
    moved = unroll._replace(value_logits=changed)

    def first_step(of, targets):
        mask = torch.zeros_like(targets.transition_mask)
        mask[0] = 1.0
        only_first = targets._replace(transition_mask=mask)
        return loss_terms(model, of, only_first, discount=0.99)["path_consistency"]

    same = first_step(unroll, targets) == first_step(moved, targets)
    # Only sample 3 terminates at state 1, so only there the value of state 1 plays no part.
    assert same.tolist() == [False, False, False, True, False, False]


def test_padding_past_the_end_contributes_exactly_nothing():
    model, unroll = unrolled()
    targets = make_targets()
    no_transition = targets.transition_mask == 0
    no_policy, no_value = targets.policy_mask == 0, targets.value_mask == 0
    assert no_transition.any()
    assert no_policy.any()
    assert no_value.any()

    def garbage(x, where):
        where = where.reshape(*where.shape, *[1] * (x.ndim - where.ndim))
        # A copy with the strides of `x`: torch's atanh differs in the last bit between layouts.
        return x.detach().clone().masked_fill_(where, 0.77)

    changed_targets = targets._replace(
        reward=garbage(targets.reward, no_transition),
        value=garbage(targets.value, no_value),
        policy_mean=garbage(targets.policy_mean, no_policy),
        policy_std=garbage(targets.policy_std, no_policy),
    )
    # Predictions that belong to no existing state or transition; the value of a truncated
    # episode's last state is the bootstrap of path consistency, so it counts as existing.
    past_the_end = torch.arange(STEPS + 1)[:, None] > LENGTHS
    changed_unroll = Unroll(
        reward_logits=garbage(unroll.reward_logits, no_transition),
        value_logits=garbage(unroll.value_logits.transpose(1, 2), past_the_end).transpose(1, 2),
        mean=garbage(unroll.mean, no_policy),
        log_std=garbage(unroll.log_std, no_policy),
        latent_predictions=garbage(unroll.latent_predictions, no_transition),
        latent_targets=garbage(unroll.latent_targets, no_transition),
    )
    weights = LossWeights(entropy=0.1)
    results = []
    for outputs, goals in ((unroll, targets), (changed_unroll, changed_targets)):
        outputs = leaves(outputs)
        terms = loss_terms(model, outputs, goals, discount=0.99)
        loss = total_loss(terms, weights)
        gradients = torch.autograd.grad(loss.sum(), outputs[:5])
        results.append((loss, terms, gradients))
    (loss, terms, gradients), (other_loss, other_terms, other_gradients) = results
    assert torch.equal(loss, other_loss)
    for name in TERMS:
        assert torch.equal(terms[name], other_terms[name]), name
    for name, x, y in zip(Unroll._fields, gradients, other_gradients, strict=False):
        assert torch.equal(x, y), name
        assert x.abs().max() > 0, name
    reward, value, mean, log_std, latent = gradients
    assert (reward[no_transition] == 0).all()
    assert (latent[no_transition] == 0).all()
    assert (mean[no_policy] == 0).all()
    assert (log_std[no_policy] == 0).all()
    assert (value.transpose(1, 2)[no_value] == 0).all()


def test_masked_action_dimensions_get_exactly_zero_gradient():
    model, unroll = unrolled()
    outputs = leaves(unroll)
    targets = make_targets()
    terms = loss_terms(model, outputs, targets, discount=0.99)
    loss = total_loss(terms, LossWeights(entropy=0.1)).sum()
    for gradient in torch.autograd.grad(loss, (outputs.mean, outputs.log_std)):
        masked = (targets.action_mask == 0).expand_as(gradient)
        assert (gradient[masked] == 0).all()
        assert gradient[~masked].abs().max() > 0


def test_unroll_and_losses_compile_to_one_graph():
    model, inputs, targets = tiny_model().train(), random_inputs(BATCH, STEPS), make_targets()

    def loss(observations, actions, task_ids):
        unroll = unroll_world_model(model, observations, actions, task_ids)
        return total_loss(loss_terms(model, unroll, targets, discount=0.99), LossWeights())

    torch.compiler.reset()
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), loss(*inputs), rtol=1e-4, atol=1e-4)


def test_a_few_gradient_steps_lower_the_loss():
    model, inputs, targets = tiny_model().train(), random_inputs(BATCH, STEPS), make_targets()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        unroll = unroll_world_model(model, *inputs)
        loss = total_loss(loss_terms(model, unroll, targets, discount=0.99), LossWeights()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 5


def test_path_consistency_bootstraps_from_the_mean_over_the_heads():
    """Heads worth 0 and 20 at the next state, reward 2: the target is 2 + 0.5 * 10 = 7."""
    model, unroll = unrolled()
    heads = [0.0, 20.0, 10.0]  # V = 3, their mean is 10 and their minimum 0
    value_logits = torch.stack(
        [
            (model.value_support.encode(torch.full((STEPS + 1, BATCH), v)) + 1e-12).log()
            for v in heads
        ],
        dim=1,
    )
    reward_logits = (model.reward_support.encode(torch.full((STEPS, BATCH), 2.0)) + 1e-12).log()
    unroll = unroll._replace(value_logits=value_logits, reward_logits=reward_logits)
    targets = make_targets()._replace(alive=torch.ones(STEPS, BATCH))
    found = loss_terms(model, unroll, targets, discount=0.5)["path_consistency"]
    expected = value_loss(
        head_mean_log_softmax(value_logits)[:-1],
        model.value_support.encode(torch.full((STEPS, BATCH), 7.0)),
        targets.transition_mask,
    )
    torch.testing.assert_close(found, expected)
