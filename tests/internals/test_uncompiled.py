"""torch: optimizers that do not import its compiler do nothing else; `test_fitting` says that a training does not."""

import torch

from pyro_onebit.internals import Adam


def test_steps_and_states_are_those_of_torch() -> None:
    parameters = [torch.nn.Parameter(torch.arange(6.0)) for _ in range(2)]
    own, theirs = [kind([p], lr=0.1, fused=True) for kind, p in zip((Adam, torch.optim.Adam), parameters, strict=True)]
    for step in range(20):
        for p, optimizer in zip(parameters, (own, theirs), strict=True):
            optimizer.zero_grad()
            (p.sin() * step).sum().backward()
            optimizer.step()
        if step == 10:
            own.load_state_dict(own.state_dict())
    assert torch.equal(*parameters)
    assert own.state_dict().keys() == theirs.state_dict().keys()
