"""Immutable records, checked when they are made: the base of everything that is stored as JSON."""

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lightning_mmnas.errors import GenotypeError


class Value(BaseModel):
    """An immutable, strictly checked record whose constructor raises `GenotypeError`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    if not TYPE_CHECKING:  # type checkers see the constructor that pydantic derives from the fields

        def __init__(self, **data: Any) -> None:
            try:
                super().__init__(**data)
            except ValidationError as error:
                raise GenotypeError(f"{type(self).__name__}: {describe_errors(error)}") from None

        # pydantic then validates nested records as usual and reports the place in the whole value
        __init__.__pydantic_base_init__ = True


def describe_errors(error: ValidationError) -> str:
    """Returns what pydantic found as `place: reason`, separated by semicolons."""
    parts = []
    for item in error.errors(include_url=False):
        place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in item["loc"])
        reason = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            reason = "unknown key"
        elif item["type"] == "missing":
            reason = "missing"
        elif item["type"] != "value_error":
            given = repr(item["input"])
            given = given if len(given) <= 40 else given[:37] + "..."
            reason = f"{reason[:1].lower()}{reason[1:]}, but {given} was given"
        parts.append(f"{place.removeprefix('.')}: {reason}" if place else reason)
    return "; ".join(parts)
