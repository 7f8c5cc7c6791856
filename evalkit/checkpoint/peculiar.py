"""Files whose weights are there, but in a form that no plain model has: named, with what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalkit.checkpoint.candidates import find_candidates

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from evalkit.checkpoint.fit import Fit
    from evalkit.checkpoint.read import Contents

FLAT = ("_flat_param", "flat_param")
ZERO_STAGE_3 = ("param_shapes", "ds_config", "zero_stage")
DISTRIBUTED_TENSOR = "torch.distributed.tensor"
PACKED = ("_packed_params", "zero_point", "weight_fake_quant", "activation_post_process")


def why_peculiar(contents: Contents, fit: Fit, model: nn.Module) -> str | None:
    """Return the line that explains why a model is not filled, or None for ordinary weights."""
    said = peculiarity(contents)
    quantised = is_quantised([*fit.candidate.tensors, *fit.candidate.others])
    if said is None and quantised and not is_quantised(model.state_dict()):
        return (
            f"expected weights for {type(model).__name__}, whose weights are floating point, got "
            "those of a quantised model: give the checkpoint before its quantisation, or a model "
            "that is quantised in the same way"
        )
    return said


def peculiarity(contents: Contents) -> str | None:
    """Return the line that explains why no plain model takes what is in a file, or None."""
    keys = [key for found in find_candidates(contents.tree) for key in found.tensors]
    if any(key.rpartition(".")[2] in FLAT for key in keys):
        return (
            "expected one tensor per parameter, got the flat ones of FSDP, which only the same "
            "number of processes can take apart: save again under "
            "StateDictType.FULL_STATE_DICT, or with torch.distributed.checkpoint"
        )
    if is_zero_stage_3(contents):
        return (
            "expected whole weights, got one process's part of a DeepSpeed checkpoint (ZeRO-3): "
            "run the zero_to_fp32.py that lies beside it and give the file that it writes"
        )
    if any(name.startswith(DISTRIBUTED_TENSOR) for name in contents.unknown):
        return (
            "expected whole weights, got one process's part of distributed tensors (DTensor): "
            "save again with torch.distributed.checkpoint, or call full_tensor() on each first"
        )
    return None


def is_quantised(keys: Iterable[str]) -> bool:
    """Whether keys are those of a model of torch.ao.quantization.

    Example:
        >>> is_quantised(["fc.scale", "fc.zero_point", "fc._packed_params._packed_params"])
        True
    """
    return any(part in PACKED for key in keys for part in key.split("."))


def is_zero_stage_3(contents: Contents) -> bool:
    """Whether this is what one process of DeepSpeed keeps: names and shapes without values."""
    if contents.path.name.startswith("zero_pp_rank_"):
        return True
    if not isinstance(contents.tree, dict):
        return False
    return all(name in contents.tree for name in ZERO_STAGE_3[:2]) and not any(
        found.elements for found in find_candidates(contents.tree.get("module"))
    )
