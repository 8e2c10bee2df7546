"""Sums over a mesh of two latents, of products whose factors mostly depend on one of them alone."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: A log-density below is nought, and so is what it multiplies, even if that is not a number.
NOUGHT = -700.0
#: Sums below are taken again in logarithms: too much of what is in them may have underflowed.
_UNDERFLOW = 1e-280


def log_product(sites: dict[str, Tensor]) -> Tensor:
    """The sum of log-densities; where one of them is nought, so is the product, even if another is not a number there.

    Raises:
        ArithmeticError: If one is not a number where the others are not nought.
    """
    total = functools.reduce(torch.add, sites.values())
    wrong = torch.isnan(total)
    if not wrong.any():
        return total
    for name, value in sites.items():
        rest = functools.reduce(
            torch.add, (v.nan_to_num(nan=0.0) for k, v in sites.items() if k != name), torch.zeros_like(total)
        )
        if (torch.isnan(value) & (rest > NOUGHT)).any():
            raise ArithmeticError(f"the density of {name} is not a number where it matters")
    return torch.where(wrong, -torch.inf, total)


#: A function as a signed sum of tables, each of shape ``(B or 1, L or 1, M or 1)``.
Terms = Sequence[tuple[float, Tensor]]


class Product:
    """A product of densities on a mesh, as a factor of the top latent, one of the lower one, and the rest.

    Networks and distributions give their tables in such shapes; to multiply them out would cost most of the time.

    Arguments:
        sites: Log-densities, each of shape ``(B or 1, L or 1, M or 1)``.
        top: The weights of the top latent's nodes, ``(B,)``.
        low: The weights of the lower latent's nodes, ``(L,)``.
        words: The number of codewords, M.
    """

    def __init__(self, sites: dict[str, Tensor], top: Tensor, low: Tensor, words: int) -> None:
        self.sites, self.top, self.low, self.words = sites, top, low, words
        log_top, log_low, log_dense = _sorted(list(sites.values()))
        #: Where a site is infinite or not a number, all is multiplied out.
        self.is_tame = all(map(_is_finite, sites.values()))
        self.dense = None if log_dense is None else log_dense.exp()
        self.of_top = (top[:, None] * log_top.exp()).expand(len(top), words)
        self.of_low = (low[:, None] * log_low.exp()).expand(len(low), words)

    def times(self, name: str, site: Tensor) -> Product:
        """The same times another density that depends on one of the latents alone, if both are the same."""
        product = copy.copy(self)
        product.sites = {**self.sites, name: site}
        product.is_tame = self.is_tame and _is_finite(site)
        if site.shape[1] == 1:
            product.of_top = self.of_top * site[:, 0].exp()
        elif site.shape[0] == 1:
            product.of_low = self.of_low * site[0].exp()
        else:
            return Product(product.sites, self.top, self.low, self.words)
        return product

    @property
    def table(self) -> Tensor:
        """The product, weights included, multiplied out, ``(B, L, M)``."""
        if not self.is_tame:
            weights = self.top[:, None, None] * self.low[:, None]
            return (log_product(self.sites).exp() * weights).expand(-1, -1, self.words)
        outer = self.of_top[:, None] * self.of_low
        return outer if self.dense is None else outer * self.dense

    def log_over_low(self, also: Tensor | None = None) -> Tensor:
        """log of the sums over the lower latent, times what else is given, ``(B, M)``."""
        sites = self.sites if also is None else {**self.sites, "x": also}
        log_top, log_low, log_dense = _sorted(list(sites.values()))
        if len(self.low) == 1 and log_dense is None:
            return log_product(sites).squeeze(1).expand(len(self.top), self.words)
        if self.is_tame and (also is None or (also.shape[0] == 1 and _is_finite(also))):
            shift = log_low.amax(0)
            total = _over_low(self.dense, (self.low[:, None] * (log_low - shift).exp()).expand(-1, self.words))
            result = (shift + total.log()).expand(len(self.top), self.words).clone()
            log_low = (log_low + self.low.log()[:, None]).expand(-1, self.words)
            for c in range(self.words):
                [rows] = torch.nonzero(total[:, c] < _UNDERFLOW, as_tuple=True)
                if log_dense is None or not len(rows):
                    continue
                own = log_dense[..., min(c, log_dense.shape[-1] - 1)]
                result[rows, c] = torch.logsumexp(own[rows] + log_low[:, c], -1)
            return result + log_top
        return torch.logsumexp(log_product(sites) + self.low.log()[:, None], 1).expand(len(self.top), self.words)

    def total(self) -> Tensor:
        """The product, weights included, summed over codewords, ``(B, L)``."""
        if not self.is_tame or (self.dense is not None and self.dense.shape[-1] > 1):
            return self.table.sum(-1)
        outer = self.of_top @ self.of_low.T
        return outer if self.dense is None else outer * self.dense[..., 0]

    def sums(self, *functions: Terms) -> list[tuple[Tensor, Tensor]]:
        """Sums of the product times functions, each over lower nodes, ``(B, M)``, and over top nodes, ``(L, M)``."""
        return list(zip(*self._sums((0, 1), functions), strict=True))

    def sums_over(self, axis: int, *functions: Terms) -> list[Tensor]:
        """The same over lower nodes alone, where axis is 0, ``(B, M)``, or over top nodes, ``(L, M)``."""
        [along] = self._sums((axis,), functions)
        return along

    def _sums(self, axes: Sequence[int], functions: Sequence[Terms]) -> list[list[Tensor]]:
        if not (self.is_tame and all(_is_finite(table) for terms in functions for _, table in terms)):
            both = [self._all_sums(terms) for terms in functions]
            return [[pair[axis] for pair in both] for axis in axes]
        parts = [_sorted([table if sign == 1.0 else sign * table for sign, table in terms]) for terms in functions]
        # Of functions of both latents, times the rest of the product.
        parts = [
            (up, low, dense if dense is None or self.dense is None else self.dense * dense) for up, low, dense in parts
        ]
        return [self._tame_sums(axis, parts) for axis in axes]

    def _tame_sums(self, axis: int, parts: Sequence[tuple[Tensor, Tensor, Tensor | None]]) -> list[Tensor]:
        # Factors that stay, and factors that are summed over.
        own, other, over = (self.of_top, self.of_low, _over_low) if axis == 0 else (self.of_low, self.of_top, _over_top)
        # All at once: to read the product is what takes time.
        columns = torch.cat([other, *(other * (low if axis == 0 else up) for up, low, _ in parts)], -1)
        mass, *moments = over(self.dense, columns).split(self.words, -1)
        results = []
        for (up, low, product), moment in zip(parts, moments, strict=True):
            result = own * ((up if axis == 0 else low) * mass + moment)
            results.append(result if product is None else result + own * over(product, other))
        return results

    def _all_sums(self, terms: Terms) -> tuple[Tensor, Tensor]:
        q = self.table
        product = torch.zeros_like(q)
        for sign, table in terms:
            # Where the density vanishes a logarithm may be infinite, or not a number; 0 times it is 0 here.
            product = product + sign * torch.where(q > 0, q * table, 0.0)
        return product.sum(1), product.sum(0)


def _sorted(sites: list[Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
    """The sums of tables of the top latent alone, ``(B or 1, m)``, of the lower alone, ``(L or 1, m)``, of both."""
    zero = torch.zeros(1, 1, dtype=torch.float64)
    of_top, of_low, dense = zero, zero, None
    for site in sites:
        if site.shape[1] == 1:
            of_top = of_top + site[:, 0]
        elif site.shape[0] == 1:
            of_low = of_low + site[0]
        else:
            dense = site if dense is None else dense + site
    return of_top, of_low, dense


def _is_finite(table: Tensor) -> bool:
    """Whether a table's numbers are finite; one read of it."""
    return math.isfinite(float(table.sum()))


def _over_low(dense: Tensor | None, c: Tensor) -> Tensor:
    if dense is None:
        return c.sum(0, keepdim=True)
    if dense.shape[-1] == 1:
        return dense[..., 0] @ c
    return torch.einsum("blm,lkm->bkm", dense, c.unflatten(-1, (-1, dense.shape[-1]))).flatten(1)


def _over_top(dense: Tensor | None, a: Tensor) -> Tensor:
    return _over_low(None if dense is None else dense.transpose(0, 1), a)
