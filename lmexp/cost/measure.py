"""What a model without a formula holds and costs: torch counts it, once, when a config is resolved.

One sequence goes through the model on the meta device, which takes neither memory nor time, and torch's FlopCounterMode
counts what is multiplied; a training step costs three forward passes, as everywhere (cost/flops.py). From there on the
numbers stand in the config, and nothing that counts needs torch. Operations that torch has no count for (kernels of
your own, products written as sums) are not seen: a family that has them needs a `count` of its own.
"""

from typing import Any

from lmexp.config.code import load_target
from lmexp.config.models.base import CountedSection, ModelSize
from lmexp.config.models.count import whole
from lmexp.config.models.hf import HFConfig
from lmexp.cost import hf
from lmexp.errors import UserError, reason_of


def measured(config: CountedSection) -> CountedSection:
    """Fill in the size of a model whose vocabulary is resolved, and its depth and width if missing.

    Raises UserError for a model that cannot go through the meta device, or that multiplies nothing.
    """
    if isinstance(config, HFConfig):
        return config.model_copy(update={"size": hf.measure(config)})
    import torch

    model_class = load_target(config.module, "model")
    try:
        with torch.device("meta"):
            model = model_class(config)
        size = _measure(model, config)
        own = {"n_layers": max(len(list(model.layers())), 1), "d_model": model.width}
    except UserError:
        raise
    except Exception as error:  # code from outside fails in any way
        raise UserError(
            f"{config.target} cannot be counted on meta tensors ({reason_of(error)}); "
            "mend that, or give its section a method count(labels)"
        ) from error
    missing = {key: value for key, value in own.items() if getattr(config, key) is None}
    return config.model_copy(update={"size": size, **missing})


def _measure(model: Any, config: CountedSection) -> ModelSize:
    import torch
    from torch import nn

    tokens = torch.zeros(1, config.context, dtype=torch.int64, device="meta")
    positions = config.sequence_tokens
    total, scores = _forward_flops(model, *_inputs(config, tokens))
    if not total:
        raise UserError(f"{config.target}: torch counts no FLOPs in it; give its section a method count(labels)")
    weights = {id(weight): weight for weight in model.parameters() if weight.requires_grad}
    tables = {id(table.weight): table.weight for table in model.modules() if isinstance(table, nn.Embedding)}
    n_params = sum(weight.numel() for weight in weights.values())
    body, n_params_head = total, 0
    if config.reads != "source_to_target":
        body, _ = _forward_flops(model.hidden, tokens)
        model.drop_head()
        n_params_head = n_params - sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    parts = {"layers": body - scores, "attention_scores": scores, "head": total - body}
    return ModelSize(
        n_params=n_params,
        n_params_active=n_params,
        n_params_embedding=sum(weight.numel() for weight in tables.values()),
        n_params_matmul=max(round((total - scores) / (2 * positions)), 1),
        n_params_head=n_params_head,
        parts={name: whole(3 * flops / positions) for name, flops in parts.items() if flops},
    )


def _inputs(config: CountedSection, tokens: Any) -> tuple[Any, ...]:
    """Return the arguments of a forward pass over one sequence, or over one source and one target."""
    if config.reads != "source_to_target":
        return (tokens,)
    sources = tokens.new_zeros((1, config.source_limit[0]))
    return sources, None, tokens


def _forward_flops(call: Any, *inputs: Any) -> tuple[int, int]:
    """Return the FLOPs of a forward pass, and those among them of torch's fused attention."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call(*inputs)
    operations = counter.get_flop_counts()["Global"]
    return sum(operations.values()), sum(flops for name, flops in operations.items() if "attention" in str(name))
