"""MoE: Llama with a mixture of experts in place of each feed-forward layer (Shazeer et al. 2017, Fedus et al. 2021).

Notable choices, Mixtral's (Jiang et al. 2024) where papers differ: a linear router without noise, each token through
the k experts it scores highest, mixed with the softmax over those k. No expert has a capacity, so no token
is dropped. Shared experts (Dai et al. 2024, section 3.2), which see every token, are one SwiGLU of their joint width.
"""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmexp.config.models.moe import MoEConfig
from lmexp.models.base import Cache
from lmexp.models.layers import SwiGLU
from lmexp.models.llama import Llama


class Experts(nn.Module):
    """A feed-forward layer of many, of which each token goes through a few. E experts, k of them a token."""

    def __init__(self, config: MoEConfig) -> None:
        super().__init__()
        self.n_chosen, self.balances = config.experts_per_token, config.balance > 0
        self.router = nn.Linear(config.d_model, config.n_experts, bias=False)
        self.experts = nn.ModuleList(SwiGLU(config.d_model, config.d_feed_forward) for _ in range(config.n_experts))
        n_shared = config.n_shared_experts
        self.shared = SwiGLU(config.d_model, n_shared * config.d_feed_forward) if n_shared else None
        self.routed: tuple[Tensor, Tensor] | None = None
        """Routing of the last training tokens, kept for `balance`: probabilities (N, E), chosen experts (N, k)."""
        self.keeps_routing = True
        """Whether the next forward pass keeps its routing; not if it is done again in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position by itself: (B, T, C) -> (B, T, C)."""
        tokens = x.flatten(0, -2)  # (N, C)
        probabilities = self._route(tokens)  # (N, E)
        weights, chosen = probabilities.topk(self.n_chosen, dim=-1)  # (N, k) each
        weights = weights / weights.sum(-1, keepdim=True)
        if self.training and self.balances and self.keeps_routing:
            self.routed = probabilities, chosen
        mixed = (self._through_experts(tokens, chosen) * weights.unsqueeze(-1)).sum(1).to(x.dtype)
        out = mixed.view_as(x)
        return out if self.shared is None else out + self.shared(x)

    def balance(self, valid: Tensor | None) -> Tensor:
        """Return the loss that is least where the last tokens were spread evenly (Fedus et al. 2021, eq. 4 to 6).

        E times the sum over experts of f_i P_i: the share of tokens that went to expert i, and the mean of its
        probability. With k experts a token the shares add up to k, and so does the loss of an even spread.
        `valid` is (B, T) bool, False for tokens that do not count.
        """
        if self.routed is None:
            raise RuntimeError("no tokens have been routed")
        (probabilities, chosen), self.routed = self.routed, None  # their graph is not to outlive the step
        went = F.one_hot(chosen, probabilities.shape[1]).sum(1)  # (N, E)
        counts = torch.ones_like(went[:, :1]) if valid is None else valid.reshape(-1, 1)
        shares, likely = ((each * counts).sum(0) / counts.sum() for each in (went, probabilities))  # (E,) each
        return len(shares) * (shares * likely).sum()

    def _route(self, tokens: Tensor) -> Tensor:
        """Return the probability of each expert: (N, C) -> (N, E), in float32 whatever else is computed in.

        Rounding would change which experts are chosen (Fedus et al. 2021, section 2.4).
        """
        kind = tokens.device.type
        wide = torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
        with wide:
            return F.linear(tokens.float(), self.router.weight.float()).softmax(-1)

    @torch.compiler.disable  # how many tokens an expert gets changes at each step; each number would need a new graph
    def _through_experts(self, tokens: Tensor, chosen: Tensor) -> Tensor:
        """Return what each token's experts make of it: (N, C), (N, k) -> (N, k, C).

        Tokens are sorted by expert, so that each is one product over its own. How many those are the host must know:
        it waits for the device once a layer.
        """
        flat = chosen.flatten()  # N k pairs of a token and an expert
        order = flat.argsort(stable=True)
        n_experts = len(self.experts)
        if flat.is_meta:  # nobody knows who goes where: evenly
            each, more = divmod(len(flat), n_experts)
            sizes = [each + (index < more) for index in range(n_experts)]
        else:
            sizes = flat.bincount(minlength=n_experts).tolist()
        groups = tokens[order // self.n_chosen].split(sizes)
        # An expert without tokens runs too, so that every weight has a gradient on every process.
        made = torch.cat([expert(group) for expert, group in zip(self.experts, groups, strict=True)])
        # Put back in order, not added up by index: sums of atomics on a GPU would differ from run to run.
        return made[order.argsort()].unflatten(0, chosen.shape)


class MoE(Llama):
    """A language model that maps tokens to logits over the next token, with experts for feed-forward layers."""

    config: MoEConfig
    has_fixed_steps = False  # the host must know how many tokens each expert gets

    def __init__(self, config: MoEConfig) -> None:
        super().__init__(config)
        self._balance: Tensor | None = None

    def new_feed_forward(self) -> nn.Module:
        """See Llama.new_feed_forward."""
        return Experts(self.config)

    def hidden(
        self,
        tokens: Tensor,
        cache: Sequence[Cache] | None = None,
        valid: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """See LanguageModel.hidden; padding is routed, but does not count in `auxiliary_loss`."""
        all_experts = [layer for layer in self.modules() if isinstance(layer, Experts)]
        for layer in all_experts:
            layer.keeps_routing = True
        hidden = super().hidden(tokens, cache, valid, documents)
        for layer in all_experts:
            layer.keeps_routing = False
        layers = [layer for layer in all_experts if layer.routed is not None]
        self._balance = None
        if layers:
            self._balance = self.config.balance * torch.stack([layer.balance(valid) for layer in layers]).sum()
        return hidden

    def auxiliary_loss(self) -> Tensor | None:
        """Return what keeps experts evenly used, added over the layers; None where it has no weight or in evaluation.

        It is of the tokens of one forward pass, hence of a micro-batch on one process: shares of tokens do not
        average, so a batch in two halves has a slightly other one than the batch as a whole.
        """
        return self._balance
