"""torch: which methods of an optimizer import its compiler, and that they do nothing else for it."""

import subprocess
import sys

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


def test_a_training_imports_no_compiler() -> None:
    """Nor what it needs: together they take longer to import than torch."""
    code = (
        "import sys, pyro_onebit as p\n"
        "for layers in (1, 2):\n"
        "    config = p.Config(ndims=2, layers=layers, steps=20)\n"
        "    p.fit(*p.build(config), config)\n"
        "print(sorted({'torch._dynamo', 'torch._inductor', 'sympy'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "[]\n", "")
