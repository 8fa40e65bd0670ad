"""Linear layers and gated MLPs of a model on a CPU, with weights that are laid out once as oneDNN's products want them.

torch's own linear layer lays the weights out anew in every call, which costs most where there are few rows: at 16 rows
a quarter to half of the time. The products take what follows them along: activation and gate are applied while a result
is still in the cache. The operators are those that `torch.compile` puts in place of linear layers.
"""

import platform
from typing import Any

import torch

_ACTIVATIONS = {"SiLU": ("swish", ""), "SiLUActivation": ("swish", ""), "GELUTanh": ("gelu", "tanh")}
_ROWS = 8  # of the trial that shows whether an MLP is a gated one
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}  # of its outputs, which are of the order of 1


def pack_linears(model: torch.nn.Module) -> int:
    """Replaces a model's linear layers, where this processor and dtype gain by it; returns how many there were.

    The plain weights are given up layer by layer, so that no more than one is held twice; those that are embeddings,
    too, stay.
    """
    if not _is_supported(next(model.parameters()).dtype):
        return 0
    packed = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear:  # a subclass may do something else
                setattr(parent, name, PackedLinear(child))
                packed += 1
    for module in model.modules():
        _fuse_gate(module)
    return packed


class PackedLinear(torch.nn.Module):
    """A linear layer of inference, from `in_features` to `out_features`.

    Args:
        linear: The layer with its plain weights.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs of shape (…, out_features)."""
        return self.activated(inputs, "none", "")

    def activated(self, inputs: torch.Tensor, activation: str, kind: str) -> torch.Tensor:
        """The activation of the outputs, by oneDNN's name for it."""
        outputs: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self.packed, self.bias, activation, [], kind)
        return outputs

    def times(self, inputs: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """The outputs, each multiplied by its number in `other`."""
        outputs: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(inputs, other, self.packed, self.bias, "mul")
        return outputs


def _is_supported(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes in this dtype here; measured on x86 alone, so others keep torch's own layers."""
    return (
        platform.machine() in {"x86_64", "AMD64"}
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # it has no types
        and (dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()))
    )


def _fuse_gate(module: Any) -> None:
    """Has down(act(gate(x)) * up(x)) computed in three products, if that is what the module does.

    Modules are known by the names of their parts, which says little of what they do with them: so it is tried.
    """
    parts = dict(module.named_children())
    gate, up, down = (parts.get(name) for name in ("gate_proj", "up_proj", "down_proj"))
    activation = _ACTIVATIONS.get(type(parts.get("act_fn")).__name__)
    if (
        activation is None
        or not isinstance(gate, PackedLinear)
        or not isinstance(up, PackedLinear)
        or not isinstance(down, PackedLinear)
    ):
        return

    def fused(inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = down(up.times(inputs, gate.activated(inputs, *activation)))
        return outputs

    dtype = gate.packed.dtype
    trial = torch.randn(_ROWS, gate.in_features, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.inference_mode():
        plain, found = module(trial), fused(trial)
    scale = plain.abs().max().clamp(min=torch.finfo(dtype).tiny)
    if bool((plain - found).abs().max() <= _TOLERANCE[dtype] * scale):
        module.forward = fused
