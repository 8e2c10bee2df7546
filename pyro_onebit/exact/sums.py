"""Sums over a mesh of two latents, of products whose factors mostly depend on one of them alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_onebit.exact.densities import log_product

#: Sums below are taken again in logarithms: too much of what is in them may have underflowed.
_UNDERFLOW = 1e-280


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
        self.log_top, self.log_low, self.log_dense = _sorted(list(sites.values()))
        #: Where a site is infinite or not a number, all is multiplied out.
        self.is_tame = all(bool(torch.isfinite(table).all()) for table in sites.values())
        self.dense = None if self.log_dense is None else self.log_dense.exp()
        self.of_top = (top[:, None] * self.log_top.exp()).expand(len(top), words)
        self.of_low = (low[:, None] * self.log_low.exp()).expand(len(low), words)

    def times(self, name: str, of_top: Tensor) -> Product:
        """The same times a density of the top latent alone, ``(B, 1, M or 1)``."""
        product = copy.copy(self)
        product.sites = {**self.sites, name: of_top}
        product.is_tame = self.is_tame and bool(torch.isfinite(of_top).all())
        product.log_top = self.log_top + of_top[:, 0]
        product.of_top = self.of_top * of_top[:, 0].exp()
        return product

    def log_over_low(self, also: Tensor | None = None) -> Tensor:
        """log of the sums over the lower latent, times what else is given, ``(B, M)``."""
        sites = dict(self.sites) if also is None else {**self.sites, "x": also}
        log_top, log_low, log_dense = _sorted(list(sites.values()))
        if len(self.low) == 1 and log_dense is None:
            return log_product(sites).squeeze(1).expand(len(self.top), self.words)
        if self.is_tame and (also is None or (also.shape[0] == 1 and bool(torch.isfinite(also).all()))):
            shift = log_low.amax(0)
            total = _over_low(self.dense, (self.low[:, None] * (log_low - shift).exp()).expand(-1, self.words))
            result = log_top + shift + total.log()
            small = total < _UNDERFLOW
            if small.any():
                rows = small.any(-1)
                again = log_low + self.low.log()[:, None] + (0.0 if log_dense is None else log_dense[rows])
                result = result.expand(len(self.top), -1).clone()
                result[rows] = torch.logsumexp(again, 1) + log_top.expand(len(self.top), -1)[rows]
            return result.expand(len(self.top), self.words)
        return torch.logsumexp(log_product(sites) + self.low.log()[:, None], 1).expand(len(self.top), self.words)

    def sums(self, terms: Sequence[tuple[float, Tensor]]) -> tuple[Tensor, Tensor]:
        """Sums of the product times a function, itself a signed sum of tables: over lower nodes, ``(B, M)``, and over
        top nodes, ``(L, M)``."""
        if not (self.is_tame and all(bool(torch.isfinite(table).all()) for _, table in terms)):
            return self._all_sums(terms)
        over_low = torch.zeros(len(self.top), self.words, dtype=self.top.dtype)
        over_top = torch.zeros(len(self.low), self.words, dtype=self.top.dtype)
        for sign, table in terms:
            a, c, dense = self.of_top, self.of_low, self.dense
            if table.shape[1] == 1:
                a = a * table[:, 0]
            elif table.shape[0] == 1:
                c = c * table[0]
            else:
                dense = table if dense is None else dense * table
            over_low += sign * a * _over_low(dense, c)
            over_top += sign * c * _over_top(dense, a)
        return over_low, over_top

    def _all_sums(self, terms: Sequence[tuple[float, Tensor]]) -> tuple[Tensor, Tensor]:
        q = (log_product(self.sites).exp() * self.top[:, None, None] * self.low[:, None]).expand(-1, -1, self.words)
        product = torch.zeros_like(q)
        for sign, table in terms:
            # Where the density vanishes a logarithm may be infinite, or not a number; 0 times it is 0 here.
            product = product + sign * torch.where(q > 0, q * table, 0.0)
        return product.sum(1), product.sum(0)


def _sorted(sites: list[Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
    """The sums of the tables of the top latent alone, ``(B or 1, m)``, of the lower alone, ``(L or 1, m)``, and of both."""
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


def _over_low(dense: Tensor | None, c: Tensor) -> Tensor:
    if dense is None:
        return c.sum(0, keepdim=True)
    return dense[..., 0] @ c if dense.shape[-1] == 1 else torch.einsum("blm,lm->bm", dense, c)


def _over_top(dense: Tensor | None, a: Tensor) -> Tensor:
    if dense is None:
        return a.sum(0, keepdim=True)
    return dense[..., 0].T @ a if dense.shape[-1] == 1 else torch.einsum("blm,bm->lm", dense, a)
