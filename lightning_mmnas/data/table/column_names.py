"""Names of a table's columns as one value for the parser of a command line."""

from typing import TYPE_CHECKING, Any

from jsonargparse.typing import register_type

if TYPE_CHECKING:
    ColumnNames = list[str]
else:

    class ColumnNames(list):
        """A list that the parser does not look into: of others it copies all for each of their items."""

        @classmethod
        def __get_pydantic_core_schema__(cls, source, handler):
            return handler(list[str])


def _names(value: Any) -> ColumnNames:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{str(value)[:80]!r} is no list of names of columns; quote names that are numbers")
    return ColumnNames(value)


register_type(ColumnNames, serializer=list, deserializer=_names, fail_already_registered=False)
