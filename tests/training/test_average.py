"""The average of the weights against its closed form and torch's, and that it leaves the weights alone."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from birder.errors import WeightsMismatch
from birder.training.average import WeightAverage
from birder.training.recipe import Average


def small(dtype=torch.float32):
    """Parameters, floating buffers and a buffer of whole numbers."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    network[1].num_batches_tracked.fill_(3)
    return network.to(dtype)


def move(network):
    """Another step, in which everything changes."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.add_(torch.randn(tensor.shape).to(tensor.dtype) if tensor.is_floating_point() else 1)


def average_of(network, steps_per_epoch=10, **options):
    return WeightAverage(network, Average(**options), steps_per_epoch)


def followed(network, average, steps):
    """The network's states from the beginning on, while the average follows."""
    states = [deepcopy(network.state_dict())]
    for step in range(steps):
        move(network)
        average.update(network, step)
        states.append(deepcopy(network.state_dict()))
    return states


def test_it_is_the_sum_of_the_closed_form():
    network = small()
    average = average_of(network, decay=0.8)
    states = followed(network, average, 6)
    for name, found in average.state_dict().items():
        if found.is_floating_point():
            terms = [0.2 * 0.8 ** (6 - step) * states[step][name].double() for step in range(1, 7)]
            expected = 0.8**6 * states[0][name].double() + sum(terms)
            torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_statistics_are_averaged_and_whole_numbers_are_copied():
    network = small()
    average = average_of(network, decay=0.8)
    first, last = followed(network, average, 1)
    assert average.weights["1.num_batches_tracked"] == 4
    mean = "1.running_mean"
    torch.testing.assert_close(average.weights[mean], 0.8 * first[mean] + 0.2 * last[mean])


def test_it_is_that_of_torch():
    network = small()
    theirs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    average = average_of(network, steps_per_epoch=1, decay=0.9, warmup_epochs=1.0)  # theirs begins with a copy
    for step in range(8):
        move(network)
        average.update(network, step)
        theirs.update_parameters(network)
    expected = theirs.module.state_dict()
    for name, found in average.state_dict().items():
        if found.is_floating_point():
            assert torch.equal(found, expected[name]), name


def test_it_is_a_copy_until_the_warmup_is_over():
    network = small()
    average = average_of(network, decay=0.9, warmup_epochs=0.5)
    for step in range(5):
        move(network)
        average.update(network, step)
        assert all(torch.equal(average.weights[name], tensor) for name, tensor in network.state_dict().items())
    before = average.weights["0.weight"].clone()
    move(network)
    average.update(network, 5)
    torch.testing.assert_close(average.weights["0.weight"], 0.9 * before + 0.1 * network[0].weight)


def test_an_update_every_few_steps_forgets_as_much():
    network = small()
    average = average_of(network, decay=0.9, every=3, warmup_epochs=0.2)
    states = followed(network, average, 9)  # two in the warm-up, then updates after the fifth and the eighth
    expected = states[2]["0.weight"]
    for moved in (5, 8):
        expected = 0.9**3 * expected + (1 - 0.9**3) * states[moved]["0.weight"]
    torch.testing.assert_close(average.weights["0.weight"], expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_any_type_is_averaged_in_enough_digits(dtype):
    network = small(dtype)
    network[0].weight.data.fill_(1.0)
    average = average_of(network, decay=0.999)
    network[0].weight.data.fill_(2.0)
    for step in range(3):
        average.update(network, step)
    assert average.weights["0.weight"].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = torch.full((), 2.0 - 0.999**3, dtype=average.weights["0.weight"].dtype)
    torch.testing.assert_close(average.weights["0.weight"][0, 0, 0, 0], expected)
    with average.swapped(network):
        assert network[0].weight.dtype == dtype
        torch.testing.assert_close(network[0].weight[0, 0, 0, 0].detach(), expected.to(dtype))


def test_the_network_has_the_average_in_the_body_and_its_own_weights_behind_it():
    network = small().eval()
    average = average_of(network, decay=0.5)
    followed(network, average, 3)
    tensors, own = network.state_dict(), deepcopy(network.state_dict())
    before = deepcopy(average.state_dict())
    with average.swapped(network):
        assert all(torch.equal(tensors[name], before[name]) for name in tensors)
        move(network)  # whatever happens in the body is forgotten
    assert all(torch.equal(tensors[name], own[name]) for name in tensors)
    assert all(torch.equal(average.weights[name], before[name]) for name in tensors)


def test_an_error_in_the_body_leaves_the_networks_own_weights():
    network = small()
    average = average_of(network, decay=0.5)
    followed(network, average, 3)
    own = deepcopy(network.state_dict())
    with pytest.raises(KeyboardInterrupt), average.swapped(network):
        assert not torch.equal(network[0].weight, own["0.weight"])
        raise KeyboardInterrupt
    assert all(torch.equal(tensor, own[name]) for name, tensor in network.state_dict().items())


def test_it_follows_without_moving_the_network_or_its_gradients():
    network = small()
    average = average_of(network, decay=0.9)
    network(torch.randn(2, 3, 3, 3)).sum().backward()
    own, gradients = deepcopy(network.state_dict()), [weight.grad.clone() for weight in network.parameters()]
    average.update(network, 0)
    assert all(torch.equal(tensor, own[name]) for name, tensor in network.state_dict().items())
    assert all(torch.equal(weight.grad, grad) for weight, grad in zip(network.parameters(), gradients, strict=True))
    assert not any(tensor.requires_grad for tensor in average.weights.values())


def test_a_resumed_average_equals_an_unbroken_one(tmp_path):
    network = small()
    average = average_of(network, decay=0.9, every=2, warmup_epochs=0.3)
    followed(network, average, 5)
    torch.save(average.state_dict(), tmp_path / "average.pt")
    fresh = average_of(small(), decay=0.9, every=2, warmup_epochs=0.3)
    fresh.load_state_dict(torch.load(tmp_path / "average.pt"))
    for step in range(5, 9):
        move(network)
        average.update(network, step)
        fresh.update(network, step)
    assert all(torch.equal(tensor, fresh.weights[name]) for name, tensor in average.weights.items())


def test_the_average_of_another_network_is_refused():
    average = average_of(small(), decay=0.9)
    before = deepcopy(average.state_dict())
    state = average_of(small(), decay=0.9).state_dict() | {"3.weight": torch.zeros(7, 4)}
    del state["0.bias"]
    with pytest.raises(WeightsMismatch, match=r"2 averaged weights are not those of this network: 0\.bias, 3\.weight"):
        average.load_state_dict(state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in average.weights.items())
