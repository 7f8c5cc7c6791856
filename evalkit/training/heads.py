"""The last layer of a classifier: found by following its outputs back, replaced in place."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import fx, nn
from torch.nn.parameter import is_lazy

from evalkit.errors import InputError
from evalkit.wording import some

if TYPE_CHECKING:
    from collections.abc import Iterator

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
GIVE_IT = "give the layer's name as head="


@dataclass(frozen=True, kw_only=True)
class Head:
    """The layers that give a model's outputs.

    Attributes:
        names: As in ``model.named_modules()``: that of the logits first, then those of auxiliary
            outputs, where a model has them (GoogLeNet, Inception, distilled transformers).
        num_classes: How many outputs each of them gives.
        companions: Modules that learn with them, where timm makes more than the last layer anew:
            the norm before it, or the hidden layer of a head that has one.
    """

    names: tuple[str, ...]
    num_classes: int
    companions: tuple[str, ...] = ()

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of all modules that learn when the rest is frozen."""
        return (*self.names, *self.companions)


def find_head(model: nn.Module, *, head: str | None = None) -> Head:
    """Find the layers that give the outputs of a classifier, whatever they are called.

    A model of timm is asked. Any other is traced symbolically (``torch.fx``; nothing is computed)
    as it would run in training, and each output is followed back to the first layer with weights:
    pooling, activations and reshaping may come after it. Where a model cannot be traced, the last
    layer with weights is taken in the order in which the model's constructor made them, if it is
    linear or a convolution.

    Args:
        model: Any classifier; on any device, ``meta`` included.
        head: Name of the layer, where it cannot be found or another is meant.

    Raises:
        InputError: There is no such layer, or none that is linear or a convolution.

    Example:
        >>> import torchvision
        >>> find_head(torchvision.models.squeezenet1_1())
        Head(names=('classifier.1',), num_classes=1000, companions=())
        >>> model = torchvision.models.googlenet(init_weights=False)
        >>> find_head(model).names
        ('fc', 'aux2.fc2', 'aux1.fc2')
    """
    found = _described(dict(_layers(model, head)))
    if head is None and _is_timm(model):
        return replace(found, companions=tuple(_companions(model, found.names)))
    return found


def replace_head(model: nn.Module, num_classes: int, *, head: str | None = None) -> Head:
    """Give a classifier another number of outputs, in place, by new last layers.

    The new layers are initialised as torch (or timm) initialises them, on the device and in the
    dtype of the old ones, and are trainable. Auxiliary outputs are replaced as well. An attribute
    ``num_classes`` of the model follows.

    Args:
        model: Any classifier.
        num_classes: How many outputs it is to give, at least 1.
        head: Name of the layer, where it cannot be found or another is meant.

    Returns:
        What was put there.

    Raises:
        InputError: There is no layer to replace, or *num_classes* is below 1.

    Example:
        >>> import torch, torchvision
        >>> model = torchvision.models.resnet18()
        >>> replace_head(model, 3)
        Head(names=('fc',), num_classes=3, companions=())
        >>> model.eval()(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 3])
    """
    if num_classes < 1:
        raise InputError(f"num_classes must be at least 1, got {num_classes}")
    if head is None and _is_timm(model):
        return _reset(model, num_classes)
    layers = dict(_layers(model, head))
    before = _described(layers).num_classes
    for name, layer in layers.items():
        if not name:
            raise InputError(
                "model must be more than its last layer, which cannot be replaced in place: "
                "put it into nn.Sequential"
            )
        model.set_submodule(name, _like(layer, num_classes))
    if getattr(model, "num_classes", None) == before:
        model.num_classes = num_classes  # type: ignore[assignment]
    return Head(names=tuple(layers), num_classes=num_classes)


def _described(layers: dict[str, Layer]) -> Head:
    sizes = sorted({_outputs(layer) for layer in layers.values()})
    if len(sizes) > 1:
        raise InputError(
            f"model must have outputs of one size, got {some(sizes)} from {some(list(layers))}: "
            f"{GIVE_IT}"
        )
    return Head(names=tuple(layers), num_classes=sizes[0])


def module_named(model: nn.Module, name: str) -> nn.Module:
    """Return the part of a model that is to be its head.

    Raises:
        InputError: There is no module of that name.
    """
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if name not in modules:
        raise InputError(
            f"head must be the name of a module, got '{name}': the last ones are "
            f"{some([known for known in modules if known][-3:])}"
        )
    return modules[name]


def _layers(model: nn.Module, head: str | None) -> Iterator[tuple[str, Layer]]:
    """Name and layer of every output."""
    if head is not None:
        names = [head]
    elif _is_timm(model):
        names = _asked(model)
    else:
        names = _traced(model)
    for name in names:
        layer = module_named(model, name)
        if not isinstance(layer, LAYERS):
            raise InputError(
                f"head must be a linear layer or a convolution, got {type(layer).__name__} "
                f"'{name}': {GIVE_IT}"
            )
        if any(is_lazy(parameter) for parameter in layer.parameters()):
            raise InputError(
                f"head must know its shape, got the lazy layer '{name}': run one batch through it"
            )
        yield name, layer


def _is_timm(model: nn.Module) -> bool:
    """Whether the model answers as all of timm's do."""
    return all(callable(getattr(model, n, None)) for n in ("get_classifier", "reset_classifier"))


def _classifier(model: Any) -> list[nn.Module]:
    """What a model of timm calls its classifier; two of them where a teacher has its own."""
    answer = model.get_classifier()
    return list(answer) if isinstance(answer, tuple | list) else [answer]


def _asked(model: Any) -> list[str]:
    """Names of the last layers of a timm model's classifier."""
    names = {module: name for name, module in model.named_modules()}
    found = []
    for part in _classifier(model):
        layers = [module for module in part.modules() if isinstance(module, LAYERS)]
        if not layers:
            raise InputError(
                f"model must have a classifier, got {type(model).__name__} with "
                f"{type(part).__name__} in its place: replace_head(model, num_classes) puts one "
                "there"
            )
        last = [layer for layer in layers if _outputs(layer) == model.num_classes]
        found += [names[layer] for layer in last or layers[-1:]]
    return found


def _companions(model: nn.Module, layers: tuple[str, ...]) -> Iterator[str]:
    """Names of what timm makes anew beside the last layers."""
    names = {module: name for name, module in model.named_modules()}
    last = {parameter for name in layers for parameter in model.get_submodule(name).parameters()}
    parts = _classifier(model)
    parents = (model.get_submodule(name.rpartition(".")[0]) for name in layers if "." in name)
    parts += [parent for parent in parents if _is_norm_and_layer(parent)]
    for part in dict.fromkeys(parts):
        if set(part.parameters()) - last:
            yield names[part]


def _is_norm_and_layer(module: nn.Module) -> bool:
    """Whether it is what several families have for a head: batch norm, dropout, linear."""
    kinds = [type(child) for child in module.children()]
    return nn.BatchNorm1d in kinds and all(
        issubclass(kind, (nn.BatchNorm1d, nn.Dropout, *LAYERS)) for kind in kinds
    )


def _reset(model: Any, num_classes: int) -> Head:
    """Let a model of timm replace its classifier."""
    former = set(model.modules())
    in_head = (parameter for part in _classifier(model) for parameter in part.parameters())
    example = next(in_head, next(model.parameters()))
    model.reset_classifier(num_classes)
    for module in set(model.modules()) - former:
        module.to(device=example.device, dtype=example.dtype).train(model.training)
    return find_head(model)


class _Tracer(fx.Tracer):
    """Follows a model down to torch's own layers, and those that were derived from them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LAYERS) or super().is_leaf_module(m, module_qualified_name)


def _traced(model: nn.Module) -> list[str]:
    """Names of the layers that the outputs come from; of the last one, if that cannot be seen."""
    if isinstance(model, LAYERS):
        return [""]
    with _left_as_it_was(model):
        for module in model.modules():
            module.training = True  # auxiliary outputs are given in training alone
        try:
            graph = _Tracer().trace(model)
        except Exception:  # noqa: BLE001 - any model's own code, on values it cannot expect
            return [_last_made(model)]
    (output,) = (node for node in graph.nodes if node.op == "output")
    parameters = dict(model.named_parameters())
    return list(dict.fromkeys(_followed(output, model, parameters))) or [_last_made(model)]


@contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Undo what running a model changes in it: modes, and values that it keeps for itself."""
    attributes = {module: dict(vars(module)) for module in model.modules()}
    buffers = {module: dict(module._buffers) for module in attributes}  # noqa: SLF001
    try:
        yield
    finally:
        for module, before in attributes.items():
            vars(module).clear()
            vars(module).update(before)
            module._buffers.clear()  # noqa: SLF001
            module._buffers.update(buffers[module])  # noqa: SLF001


def _followed(
    node: fx.Node, model: nn.Module, parameters: dict[str, nn.Parameter]
) -> Iterator[str]:
    """Go back from a node to the first layers with weights."""
    waiting, seen = list(node.all_input_nodes), {node}
    while waiting:
        at = waiting.pop(0)
        if at in seen:
            continue
        seen.add(at)
        if at.op == "call_module" and _has_weights(model.get_submodule(str(at.target))):
            yield str(at.target)
        elif at.op == "get_attr" and at.target in parameters:
            raise InputError(
                f"model must give its outputs by a layer, got a function of '{at.target}': "
                f"{GIVE_IT}"
            )
        else:
            waiting += at.all_input_nodes


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _last_made(model: nn.Module) -> str:
    made = [
        name
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    if not made:
        raise InputError(f"model must have layers, got {type(model).__name__} without parameters")
    return str(made[-1])


def _outputs(layer: Layer) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _like(layer: Layer, outputs: int) -> Layer:
    """Make a fresh layer that differs in the number of its outputs alone."""
    place: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        new: Layer = nn.Linear(layer.in_features, outputs, bias=bias, **place)
    else:
        kind: Any = next(kind for kind in LAYERS if isinstance(layer, kind))
        new = kind(
            layer.in_channels,
            outputs,
            layer.kernel_size,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
            bias=bias,
            padding_mode=layer.padding_mode,
            **place,
        )
    return new.train(layer.training)
