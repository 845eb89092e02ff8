"""Where there is no GPU a graphed function is the function; test_devices.py has the rest."""

import copy

import torch

from codec.graphed import Graphed


def test_calls_the_function_and_copies_without_its_graph():
    calls = []

    def double(x, y):
        calls.append(x)
        return 2 * x, y

    graphed = Graphed(double)
    one, two = torch.ones(2), torch.zeros(3)
    for each in (graphed, copy.deepcopy(graphed)):
        first, second = each(one, two)
        assert torch.equal(first, 2 * one) and second is two
    assert len(calls) == 2
