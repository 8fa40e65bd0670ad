"""Matrix products in bf16 and everything else in fp32, for processors whose bf16 instructions outrun fp32.

torch's autocast would take attention along, whose backward pass is several times slower in bf16 on a CPU. So the layers
round what they multiply by themselves: what goes into a linear layer and what comes out of it is fp32.

It is imported where a training begins: it needs torch at its head.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn.functional import linear


def multiply_in_bfloat16(model: Any) -> Callable[[], None]:
    """Lets the model's linear layers multiply in bf16; what is called to have the plain layers back, in fp32.

    Weights of linear layers and embeddings keep their dtype, which saves half of their memory where that is bf16.
    """
    embeddings = model.get_input_embeddings()
    layers = [module for module in model.modules() if type(module) is torch.nn.Linear]
    kept = {id(layer.weight) for layer in layers} | {id(weight) for weight in embeddings.parameters()}
    for tensor in model.parameters():
        if id(tensor) not in kept:
            tensor.data = tensor.data.float()
    for layer in layers:
        layer.forward = partial(_linear, layer)  # type: ignore[method-assign]
    hook = embeddings.register_forward_hook(lambda module, inputs, output: output.float())

    def undo() -> None:
        hook.remove()
        for layer in layers:
            del layer.forward
        model.float()

    return undo


def _linear(layer: Any, inputs: torch.Tensor) -> torch.Tensor:
    product: torch.Tensor = _Product.apply(inputs, layer.weight)  # type: ignore[no-untyped-call]  # torch's has no types
    return product if layer.bias is None else product + layer.bias


class _Product(torch.autograd.Function):
    """x W^T. Inputs are kept for the backward pass only where the weight is trained."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        rounded = inputs.bfloat16()
        ctx.save_for_backward(rounded if ctx.needs_input_grad[1] else None, weight)
        return linear(rounded, weight.bfloat16()).to(inputs.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        inputs, weight = ctx.saved_tensors
        rounded = gradient.bfloat16()
        to_inputs = (rounded @ weight.bfloat16()).to(gradient.dtype) if ctx.needs_input_grad[0] else None
        if inputs is None:
            return to_inputs, None
        return to_inputs, (rounded.flatten(0, -2).T @ inputs.flatten(0, -2)).to(weight.dtype)
