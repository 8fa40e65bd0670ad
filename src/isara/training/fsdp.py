"""A training whose processes share the weights out (FSDP2): what the trainer is told, and the model afterwards."""

from dataclasses import replace
from typing import Any


def fsdp_arguments() -> dict[str, Any]:
    """What transformers' trainer is told; a layer of the model's is what is gathered at a time."""
    import transformers

    wrapped = int(transformers.__version__.split(".")[0]) >= 5  # by itself, and older versions are told so
    config = {"version": 2, "state_dict_type": "FULL_STATE_DICT", "cpu_ram_efficient_loading": "false"}
    return {"fsdp": True if wrapped else "full_shard auto_wrap", "fsdp_config": config}


def settle(trainer: Any) -> None:
    """Sees to it that a trainer shares its weights out as it was told.

    On a CPU torch can do it, and accelerate doesn't. And gradients are added up in float32, as those of several whole
    models are, and not in the dtype of the arithmetic.
    """
    import torch
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    state = trainer.accelerator.state
    if trainer.args.use_cpu:
        state.distributed_type = DistributedType.FSDP
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
        trainer.is_fsdp_enabled = True
    policy = state.fsdp_plugin.mixed_precision_policy
    if policy is not None:
        state.fsdp_plugin.mixed_precision_policy = replace(policy, reduce_dtype=torch.float32)


def held(model: Any) -> tuple[int, int]:
    """How many weights this process holds, and how many all do."""
    parts = list(model.parameters())
    return sum((p.to_local() if hasattr(p, "to_local") else p).numel() for p in parts), sum(p.numel() for p in parts)


def whole_weights(model: Any) -> dict[str, Any]:
    """The weights by name, gathered on the CPU of the first process; each has to ask, and the others get none."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
