"""How a question is put to NVML, so that whatever goes wrong becomes the reason for a gap.

A question is a function of a device's handle. It is built once, from the name of a function of
pynvml, and asked of every GPU; its `__name__` is what a reason names.
"""

from __future__ import annotations

import pynvml as n

TYPE_CHECKING = False  # typing itself costs a fifth of these scripts' time
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

# Return codes by their number: an old pynvml lacks some of the names.
INVALID_ARGUMENT = 2
NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
FUNCTION_NOT_FOUND = 13
ARGUMENT_VERSION_MISMATCH = 25

TOO_NEW = {FUNCTION_NOT_FOUND, ARGUMENT_VERSION_MISMATCH}
# What a driver or a part does not have is not a fault. An old driver calls a choice that it does
# not know, such as a field's number, an invalid argument.
NOT_A_FAULT = {INVALID_ARGUMENT, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND} | TOO_NEW
VALUE_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")

faults: set[int] = set()  # unusual return codes of the GPU that is being asked


class Gap(dict):  # type: ignore[type-arg]  # typing is not imported
    """Why there is no value: in JSON `{"missing": reason}`, as in a snapshot."""

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(missing=reason)
        self.code = code


def gap(name: str, error: Exception) -> Gap:
    """What an exception says about a question."""
    if isinstance(error, n.NVMLError):
        return Gap(f"{name}: {error} (NVML {error.value})", error.value)
    return Gap(f"{name}: {type(error).__name__}: {error}")


def ask(question: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or why there is none; unusual return codes are kept in `faults`."""
    try:
        return question(*arguments)
    except Exception as error:
        missing = gap(question.__name__, error)
        if missing.code is not None and missing.code not in NOT_A_FAULT:
            faults.add(missing.code)
        return missing


def answers(fields: Mapping[str, Callable[..., Any]], *arguments: Any) -> dict[str, Any]:
    """A value or a gap for every field; a question may answer several, named with spaces."""
    facts: dict[str, Any] = {}
    for names, question in fields.items():
        answer = ask(question, *arguments)
        if " " not in names:
            facts[names] = answer
        elif isinstance(answer, Gap):
            facts |= dict.fromkeys(names.split(), answer)
        else:
            facts |= zip(names.split(), answer, strict=True)
    return facts


def read(
    name: str, *choices: Any, convert: Callable[[Any], Any] | None = None
) -> Callable[..., Any]:
    """The question that calls pynvml's function of that name.

    Args:
        name: The function; that an older nvidia-ml-py lacks it is said only when it is asked.
        choices: What it takes behind the device, such as the kind of clock.
        convert: Applied to the answer, for units and names.
    """
    function = getattr(n, name, None)

    def question(*device: Any) -> Any:
        if function is None:
            raise NotImplementedError("the installed nvidia-ml-py does not know it")
        value = function(*device, *choices)
        return value if convert is None else convert(value)

    question.__name__ = name
    return question


def newest(*questions: Callable[..., Any]) -> Callable[..., Any]:
    """One question in several forms, newest first: the first that this driver knows."""
    left = list(questions)

    def question(*device: Any) -> Any:
        while len(left) > 1:
            try:
                return left[0](*device)
            except NotImplementedError:
                del left[0]
            except n.NVMLError as error:
                if error.value not in TOO_NEW:
                    raise
                del left[0]
        return left[0](*device)

    question.__name__ = questions[0].__name__
    return question


def field_value(number: int, *, convert: Callable[[Any], Any] | None = None) -> Callable[..., Any]:
    """The question for one of the numbered fields (NVML_FI_DEV_…), of a link where one is given."""

    def question(device: Any, link: int = 0) -> Any:
        (field,) = n.nvmlDeviceGetFieldValues(device, [(number, link)])
        if field.nvmlReturn != n.NVML_SUCCESS:
            raise n.NVMLError(field.nvmlReturn)
        value = getattr(field.value, VALUE_MEMBERS[field.valueType])
        return value if convert is None else convert(value)

    question.__name__ = f"nvmlDeviceGetFieldValues({number})"
    return question


def per(divisor: float) -> Callable[[float], float]:
    """Convert to a unit that is *divisor* times as large."""
    return lambda value: value / divisor


def name_in(names: Mapping[int, str]) -> Callable[[int], str]:
    """Convert a number to its name; one without a name stays a number."""
    return lambda number: names.get(number, str(number))


def flags(numbers: list[int]) -> list[bool]:
    """Convert several switches at once."""
    return [bool(number) for number in numbers]
