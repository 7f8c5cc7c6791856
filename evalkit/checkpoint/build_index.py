"""Write fingerprints.json: ``python -m evalkit.checkpoint.build_index``, some minutes on one core.

Every model of torchvision and timm is built on the meta device, without weights. Models with the
same tensors are said to compute the same if all their modules are of the same classes with the
same settings, or, between the two libraries, if they give the same outputs with the same weights.
"""

from __future__ import annotations

import gc
import json
import logging
import warnings
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evalkit import models
from evalkit.checkpoint import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

CLASSES = 1009  # a prime that is no dimension of any model
LARGEST_RUN = 200_000_000  # values in a model that is still run to compare outputs
IMAGE_SIDES = (224, 299, 256, 384)
PLAIN = (int, float, str, bool, tuple, type(None))
BUILDING = (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError, LookupError)
_log = logging.getLogger(__name__)


def main() -> None:
    """Build all models and write the index beside this module."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    warnings.simplefilter("ignore")
    import timm
    import torchvision

    known: dict[tuple[str, str], dict[str, Any]] = {}
    for spec in _specs():
        try:
            _note(known, spec, _build(spec))
        except BUILDING as error:
            _log.info("left out %s: %s", spec, " ".join(str(error).split())[:100])
    index = {
        "torchvision": torchvision.__version__.partition("+")[0],
        "timm": timm.__version__,
        "architectures": [_entry(key, found) for key, found in known.items()],
    }
    target = Path(__file__).with_name(fingerprint.INDEX)
    text = json.dumps(index, separators=(",", ":"))
    target.write_text(text.replace('"],["', '"],\n["') + "\n", encoding="utf-8")
    _log.info("%d architectures, %d bytes", len(known), target.stat().st_size)


def _specs() -> Iterator[str]:
    import timm

    torchvision = models.import_torchvision()
    for name in torchvision.models.list_models(module=torchvision.models):
        yield f"torchvision:{name}"
    for name in timm.list_models():
        yield f"timm:{name}"


def _build(spec: str) -> nn.Module:
    try:
        with torch.device("meta"):
            return models.build(spec, num_classes=CLASSES)
    except NotImplementedError:  # torchvision's RegNet computes its widths with tensors
        return models.build(spec, num_classes=CLASSES)


def _note(known: dict[tuple[str, str], dict[str, Any]], spec: str, model: nn.Module) -> None:
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    head = [
        (key, shape.index(CLASSES))
        for key, shape in shapes.items()
        if shape.count(CLASSES) == 1 and not key.endswith(fingerprint.COUNTER)
    ]
    names = fingerprint.names_hash(shapes)
    body = fingerprint.shapes_hash(shapes, without={key for key, _axis in head})
    entry = known.setdefault((names, body), {"head": head, "specs": defaultdict(list)})
    body_shapes = {key: shape for key, shape in shapes.items() if CLASSES not in shape}
    entry["sketch"] = fingerprint.sketch(body_shapes)
    entry["specs"][_settings(model)].append(spec)


def _settings(model: nn.Module) -> str:
    """Return the classes and plain attributes of all modules: what they compute."""
    lines = []
    for name, module in model.named_modules():
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        plain = {key: _plain(value) for key, value in sorted(vars(module).items())}
        plain = {key: value for key, value in plain.items() if value != "?"}
        lines.append(f"{name} {kind} {plain}")
    return "\n".join(lines)


def _plain(value: Any) -> str:
    if isinstance(value, PLAIN):
        return repr(value)
    return getattr(value, "__qualname__", "?")


def _entry(key: tuple[str, str], found: dict[str, Any]) -> list[Any]:
    groups = [sorted(group, key=_plainest) for group in found["specs"].values()]
    groups = sorted(_joined(groups), key=lambda group: _plainest(group[0]))
    return [*key, found["head"], groups, "".join(found["sketch"])]


def _plainest(spec: str) -> tuple[bool, int, str]:
    return not spec.startswith("torchvision"), len(spec), spec


def _joined(groups: list[list[str]]) -> list[list[str]]:
    """Join groups of both libraries whose models give the same outputs."""
    own = [group for group in groups if group[0].startswith("torchvision:")]
    joined = [list(group) for group in own]
    for group in groups:
        if group in own:
            continue
        same = next((one for one in joined if _gives_the_same(one[0], group[0])), None)
        if same is None:
            joined.append(list(group))
        else:
            same.extend(group)
    return joined


def _gives_the_same(one: str, other: str) -> bool:
    """Whether two models give equal outputs with equal random weights."""
    if one.partition(":")[0] == other.partition(":")[0]:
        return False  # told apart by their settings already
    size = sum(value.numel() for value in _build(one).state_dict().values())
    if size > LARGEST_RUN:
        return False
    torch.manual_seed(0)
    left, right = models.build(one).eval(), models.build(other).eval()
    right.load_state_dict(left.state_dict())
    gc.collect()
    for side in IMAGE_SIDES:
        pixels = torch.rand(1, 3, side, side)
        try:
            with torch.inference_mode():
                a, b = left(pixels), right(pixels)
        except (RuntimeError, AssertionError, ValueError):
            continue  # another size of image
        same = torch.allclose(a, b, rtol=1e-4, atol=1e-5)
        _log.info("%s and %s give %s outputs", one, other, "equal" if same else "other")
        return same
    return False


if __name__ == "__main__":
    main()
