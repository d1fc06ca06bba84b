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
        lines = [f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}" for e in listed()]
        return "; ".join(lines)
    return str(error).strip() or type(error).__name__
