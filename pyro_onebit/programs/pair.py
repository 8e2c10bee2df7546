"""A model and a guide together: the log-density of every site, where it is asked for."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pyro_onebit.errors import ProgramError
from pyro_onebit.programs.conditional import Conditional
from pyro_onebit.programs.densities import DataLike, Densities
from pyro_onebit.programs.layout import check_data, check_prior, choose_layout
from pyro_onebit.programs.program import Latents, Program

#: Numbers in one temporary matrix: half a million float64 are 4 MB, which a core's cache still holds.
BLOCK = 2**19


class Pair:
    """A model and a guide as programs of the codewords.

    Arguments:
        model: A Pyro program of rows x: a module or a function.
        guide: One that draws the model's latents.
        data: The codewords and their probabilities.

    Raises:
        InputError: If the data are no distinct codewords with probabilities.
        ProgramError: If a program cannot be judged, or the two do not go together; the message says why.
        ArithmeticError: If a parameter is not finite.
    """

    def __init__(self, model: Any, guide: Any, data: DataLike) -> None:
        self.x, self.probs = data.codewords.detach().double(), data.probs.detach().double()
        check_data(self.x, self.probs)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)  # a program is tried at the same places each time
            self.model = Program("model", model, self.x)
            self.guide = Program("guide", guide, self.x, self.model.supports)
            #: The latents' names, the lowest first: the model draws the top one first.
            self.latents = self.model.latents[::-1]
            self._check_sites()
            for program in (self.model, self.guide):
                choose_layout(program)
            check_prior(self.model)
            #: Whether p(x|z) depends on the top latent, where it is not the only one.
            self.x_needs_top = self._find_whether_x_needs_top()
            #: Whether x's dimensions are independently Bernoulli given the latents.
            self.x_is_product = self._find_whether_x_is_product()
        none = torch.full((1,), torch.inf, dtype=torch.float64)
        self._known = none, none.expand(1, self.words)

    @property
    def words(self) -> int:
        """The number of codewords, M."""
        return len(self.x)

    def _check_sites(self) -> None:
        drawn, asked = self.guide.latents, self.model.latents
        if not 1 <= len(asked) <= 2:
            raise ProgramError(
                f"the model has {len(asked)} latents ({', '.join(asked) or 'none'}); it must have 1 or 2"
            )
        if not self.model.observed:
            raise ProgramError("the model observes nothing; it must observe x")
        if set(drawn) != set(asked):
            raise ProgramError(
                f"the guide draws {', '.join(sorted(drawn)) or 'nothing'}, and the model {', '.join(sorted(asked))}; "
                f"the guide must have a site of the same name for each latent"
            )
        if self.guide.observed:
            raise ProgramError(f"the guide observes {', '.join(self.guide.observed)}; it must observe nothing")
        for name in asked:
            if self.model.events[name] != self.guide.events[name]:
                raise ProgramError(f"site {name!r} has events of another shape in the guide than in the model")

    def given(self, program: Program, name: str, values: Latents) -> Conditional:
        """A program's distribution of a latent given those before it; that of the first one is kept."""
        if not values:
            return self.first(program)
        return program.conditional(name, values, alone=program is self.model and program.splits)

    @cached_property
    def first_q(self) -> Conditional:
        """The guide's distribution of the latent that it draws first."""
        return self.guide.conditional(self.guide.latents[0], {})

    @cached_property
    def first_p(self) -> Conditional:
        """The model's distribution of the top latent."""
        return self.model.conditional(self.latents[-1], {}, alone=self.model.splits)

    def first(self, program: Program) -> Conditional:
        """A program's distribution of the latent that it draws first."""
        return self.first_q if program is self.guide else self.first_p

    def likelihood(self, values: Latents) -> Tensor:
        """log p(x|z), nats, summed over all that is observed: values ``(N, 1 or M)`` to ``(N, M)``."""
        count = len(next(iter(values.values())))
        # In blocks: all the logits at once would be gigabytes. And into a table that is there already: what is kept
        # between two blocks' logits would leave holes, of their size, in the process's memory.
        table = torch.empty(count, self.words, dtype=torch.float64)
        for rows in torch.arange(count).split(max(1, BLOCK // self.x.numel())):
            sites = self.model.run({name: value[rows] for name, value in values.items()}, self.x)
            parts = [sites[name]["fn"].log_prob(sites[name]["value"]) for name in self.model.observed]
            total = sum(parts[1:], parts[0])
            table[rows] = total if self.model.leading else total.unflatten(-1, (-1, self.words))
        return table

    def _find_whether_x_needs_top(self) -> bool:
        if len(self.latents) == 1:
            return True
        values = {name: torch.randn(64, 1, dtype=torch.float64) for name in self.latents}
        top = self.latents[-1]
        tables = [self.likelihood({**values, top: values[top][torch.randperm(64)]}) for _ in range(3)] + [
            self.likelihood({**values, top: torch.full_like(values[top], torch.nan)})
        ]
        return not all(torch.equal(table, tables[0]) for table in tables)

    def _find_whether_x_is_product(self) -> bool:
        if len(self.model.observed) > 1:
            return False
        sites = self.model.run({name: torch.randn(7, 1, dtype=torch.float64) for name in self.latents}, self.x)
        fn = sites[self.model.observed[0]]["fn"]
        if not isinstance(base_of(fn), torch.distributions.Bernoulli):
            return False
        # A decoder that looks at x may make dimensions agree without a latent. Where no latent lies it has no means.
        means = fn.mean.reshape(7, self.words, -1)
        return bool(torch.isclose(means, means[:, :1], rtol=1e-9, atol=0.0, equal_nan=True).all())

    @property
    def is_usual(self) -> bool:
        """Whether the model is of the kind for which guides' limits are known.

        It draws the top latent from N(0, 1), a lower one given it from a Gaussian, and each dimension of x
        independently given the lowest one alone.
        """
        fns = [base_of(self.model.sites[name]["fn"]) for name in self.latents]
        return (
            self.x_is_product
            and (len(fns) == 1 or not self.x_needs_top)
            and all(isinstance(fn, torch.distributions.Normal) for fn in fns)
            and bool((fns[-1].loc == 0.0).all() and (fns[-1].scale == 1.0).all())
        )

    def likelihood_at(self, nodes: Tensor) -> Tensor:
        """log p(x|z) at nodes of the lowest latent, ``(N, M)``, whatever another one is.

        Kept: panels are looked at again and again, and at many dimensions this is what takes time.
        """
        known, table = self._known
        place = torch.searchsorted(known, nodes).clamp_max(len(known) - 1)
        new = nodes[known[place] != nodes].unique()
        if len(new):
            found = self.likelihood(dict.fromkeys(self.latents, new[:, None]))
            known, order = torch.cat([known, new]).sort()
            table = torch.cat([table, found])[order]
            self._known = known, table
        return table[torch.searchsorted(known, nodes)]

    def at(self, values: Latents, likelihood: Tensor | None = None) -> Densities:
        """The sites at draws ``(N, M)``, each table of that shape; `likelihood`, if known, is `likelihood(values)`."""
        q, p = (self._all_at(program, values) for program in (self.guide, self.model))
        return Densities(q, p, self.likelihood(values) if likelihood is None else likelihood)

    def _all_at(self, program: Program, values: Latents) -> Latents:
        return {
            name: self._at(program, name, {key: values[key] for key in program.latents[:i]}, values[name])
            for i, name in enumerate(program.latents)
        }

    def _at(self, program: Program, name: str, given: Latents, z: Tensor) -> Tensor:
        if given and program is self.model and program.splits:
            # Which codeword it is makes no difference: all draws in one column.
            flat = {key: value.reshape(-1, 1) for key, value in given.items()}
            return self.given(program, name, flat).log_prob_at(z.reshape(-1, 1)).reshape(z.shape)
        return self.given(program, name, given).log_prob_at(z.expand(-1, self.words))

    def draw(self, program: Program, count: int, rest: Latents | None = None) -> Latents:
        """Draws of a program's latents, ``(count, M)``, in the order in which it draws them; with torch's generator."""
        values: Latents = dict(rest or {})
        for name in program.latents:
            if name not in values:
                values[name] = self.given(program, name, values).sample(count).expand(count, self.words)
        return values

    def at_draws(self, count: int) -> Densities:
        """The sites at `count` draws of the guide: `at` of `draw`, but that the guide's networks are run once."""
        values: Latents = {}
        q = {}
        for name in self.guide.latents:
            conditional = self.given(self.guide, name, values)
            values[name] = conditional.sample(count).expand(count, self.words)
            q[name] = conditional.log_prob_at(values[name])
        return Densities(q, self._all_at(self.model, values), self.likelihood(values))

    def mean_x(self, values: Latents) -> Tensor:
        """The means of what the model observes, at values ``(N, 1)``, ``(N, n)``.

        Raises:
            ProgramError: If they do not say all about it.
        """
        if not self.x_is_product:
            raise ProgramError(
                f"{', '.join(self.model.observed)} is no product of Bernoulli distributions, alike for all x"
            )
        [name] = self.model.observed
        fn = self.model.run(values, self.x[:1])[name]["fn"]
        return fn.mean.reshape(-1, self.x.shape[-1])

    def draw_x(self, values: Latents) -> Tensor:
        """Draws of what the model observes, given values ``(N, m)`` of all latents, ``(N, m, n)``."""
        [name] = self.model.observed
        columns = next(iter(values.values())).shape[-1]
        fn = self.model.run(values, self.x[:columns])[name]["fn"]
        return fn.sample().reshape(-1, columns, self.x.shape[-1])

    def draw_given(self, x: Tensor, count: int) -> Latents:
        """Draws of q(z|x) for any rows x ``(rows, n)``, ``(count, rows)`` of each latent.

        Raises:
            ProgramError: If the guide is not amortised: if it is free for each codeword.
        """
        if not self.guide.splits:
            raise ProgramError("the guide is free for each codeword; it says nothing of other rows")
        values: Latents = {}
        for name in self.guide.latents:
            fn = self.guide.run(values, x, name)[name]["fn"]
            flat = not self.guide.leading and bool(values)
            values[name] = Conditional([fn], count, self.guide.events[name], flat=flat).sample(count)
        return values


def base_of(fn: Any) -> Any:
    """A distribution whose events are independent draws of another one: that one."""
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    return fn
