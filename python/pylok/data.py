"""Between Python values and the JSON-like data of a lock (google.protobuf.Struct).

What survives, and as what:

- None, bool, str, list, dict, and int up to 2^53 in size: as they are.
- float: as it is; a whole one comes back as the int that it equals.
- int beyond 2^53: as str, so that no digit is lost.
- date and datetime: as the text that PyYAML writes for them,
  `2019-12-20 00:00:00`; a datetime with a zone as RFC 3339, `2019-12-20T00:00:00+00:00`.
- tuple: as list.
- Keys of a dict that are not str: as the text that PyYAML writes for them,
  `1`, `1.0e+16`, `true`, `null`; dates as above.
- Anything else is a TypeError that says where it is; a ValueError are text that is no
  Unicode (of a file name that is not UTF-8), keys that become the same text, numbers that
  are not finite, and more than 32 levels of dicts and lists.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from typing import Any

from google.protobuf import struct_pb2

RESERVED_KEYS = frozenset(
    (
        "lock_acquired",
        "lock_action",
        "lock_caller",
        "lock_expires",
        "lock_file_location",
        "lock_file_status",
        "lock_holder",
        "lock_on_expiry",
        "lock_request_id",
        "lock_scope",
        "lock_set",
        "lock_stale",
        "lock_token",
        "lock_ttl",
    )
)
"""The top-level keys that the server alone writes. They are dropped from data."""

_LARGEST_INT = 2**53  # up to here every int is a float

# What has more levels of dicts and lists is refused here. The server refuses what has more
# than 32; this is for what protobuf cannot send, and for what holds itself.
_MOST_LEVELS = 64


def to_struct(data: Mapping[Any, Any]) -> struct_pb2.Struct:
    """Returns data as it is sent, without the reserved keys."""
    if not isinstance(data, Mapping):
        raise TypeError(f"data is a {type(data).__name__}; give a mapping")
    struct = struct_pb2.Struct()
    _fill(struct, {k: v for k, v in data.items() if k not in RESERVED_KEYS}, "data", 1)
    return struct


def from_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    """Returns data that was received, as a new dict."""
    return {key: _from_value(value) for key, value in struct.fields.items()}


def _fill(struct: struct_pb2.Struct, mapping: Mapping[Any, Any], where: str, level: int) -> None:
    for key, value in mapping.items():
        text = _key(key, where)
        if text in struct.fields:
            raise ValueError(f"{where} has two keys that both become {text!r}")
        _set(struct.fields[text], value, f"{where}[{key!r}]", level + 1)


def _set(target: struct_pb2.Value, value: Any, where: str, level: int) -> None:
    """Sets a value; level is its own, if it is a dict or a list."""
    if value is None:
        target.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, str):
        if not _is_unicode(value):
            raise ValueError(f"{where} is no text in Unicode: {value!r}")
        target.string_value = value
    elif isinstance(value, int):
        if abs(value) <= _LARGEST_INT:
            target.number_value = value
        else:
            target.string_value = str(int(value))
    elif isinstance(value, float):
        target.number_value = value
    elif isinstance(value, datetime.date):
        target.string_value = _date_text(value)
    elif isinstance(value, (Mapping, list, tuple)) and level > _MOST_LEVELS:
        raise ValueError(f"{where[:60]}... is nested deeper than 32 levels")
    elif isinstance(value, Mapping):
        target.struct_value.SetInParent()
        _fill(target.struct_value, value, where, level)
    elif isinstance(value, (list, tuple)):
        target.list_value.SetInParent()
        for i, element in enumerate(value):
            _set(target.list_value.values.add(), element, f"{where}[{i}]", level + 1)
    else:
        raise TypeError(f"{where} is a {type(value).__name__}, which a lock file cannot hold")


def _key(key: Any, where: str) -> str:
    if isinstance(key, str):
        if not _is_unicode(key):
            raise ValueError(f"{where} has a key that is no text in Unicode: {key!r}")
        return key
    if key is None:
        return "null"
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int):
        return str(int(key))
    if isinstance(key, float):
        return _float_text(float(key))
    if isinstance(key, datetime.date):
        return _date_text(key)
    raise TypeError(f"{where} has a key that is a {type(key).__name__}, which a lock file cannot hold")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, as os.fsdecode makes them
        return False
    return True


def _float_text(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    text = repr(value)
    return text if "." in text else text.replace("e", ".0e")  # YAML 1.1 has 1e+16 as text


def _date_text(value: datetime.date) -> str:
    if isinstance(value, datetime.datetime) and value.tzinfo is None:
        return value.isoformat(" ")
    return value.isoformat()


def _from_value(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return from_struct(value.struct_value)
    if kind == "list_value":
        return [_from_value(element) for element in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if abs(number) <= _LARGEST_INT and number.is_integer() else number
    if kind == "string_value":
        return value.string_value
    if kind == "bool_value":
        return value.bool_value
    return None
