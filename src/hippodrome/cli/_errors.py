"""An error as the sentence a person reads."""

from typing import Any


def sentence(error: Exception) -> str:
    """What went wrong, without a trace: the message, the file the system named, or pydantic's list."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror.lower()}"
    if isinstance(error, ImportError) and error.name:
        return f"{error} (pip install {error.name.split('.')[0]})"
    listed: Any = getattr(error, "errors", None)
    if callable(listed):
        return "; ".join(_line(fault) for fault in listed())
    return str(error).strip() or type(error).__name__


def _line(fault: dict[str, Any]) -> str:
    """One fault of pydantic's list: the field, and what it says or what our own check said."""
    own = fault.get("ctx", {}).get("error")
    where = ".".join(map(str, fault["loc"]))
    return f"{where}: {own or fault['msg']}" if where else str(own or fault["msg"])
