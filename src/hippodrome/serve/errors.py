"""Errors in the protocol's form: ``{"error": {"message", "type", "param", "code"}}``, whatever went wrong."""

from collections.abc import Mapping
from typing import Any

from fastapi.responses import Response
from pydantic import BaseModel, Field

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}
"""The protocol's word for each status."""


class Fault(BaseModel):
    """What went wrong."""

    message: str = Field(description="A sentence for a person.")
    type: str
    param: str | None = Field(description="The field of the request that it is about.")
    code: str | None = Field(description="A word for a program.")


class ErrorAnswer(BaseModel):
    """The body of every answer that is an error."""

    error: Fault


class ApiError(Exception):
    """Ends a request with this status, sentence and code."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """As the protocol spells it."""
        kind = KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        fault = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": fault}

    def response(self) -> Response:
        """The answer."""
        return Response(encode(self.body()), self.status, self.headers, "application/json")


def encode(value: Any) -> bytes:
    """JSON in ASCII: what a client sent may hold what is no Unicode, and an error may quote it."""
    import json

    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def from_validation(faults: list[Any]) -> ApiError:
    """pydantic's list of faults as one sentence about the first field that is wrong."""
    first = faults[0]
    if first.get("type") == "json_invalid":
        return ApiError(400, "the body is no JSON.", code="invalid_json")
    field = _field(first)
    said = [_said(fault) for fault in faults if _field(fault) == field]
    # Of a field that may be one of several things each says why it is not: three of them are enough.
    words = "; or ".join(list(dict.fromkeys(said))[:3])
    ours = first.get("type") == "value_error"
    where = f"{field}: " if field else "" if ours else "the body is a JSON object: "
    message = f"{where}{words}"
    return ApiError(400, message[:1000], param=field, code="invalid_value")


def _field(fault: Any) -> str | None:
    places = [part for part in fault.get("loc", ()) if part != "body"]
    return str(places[0])[:100] if places else None


def _said(fault: Any) -> str:
    if fault.get("type") == "extra_forbidden":
        return "there is no such field here"
    return str(fault.get("msg", "it is not as it should be")).removeprefix("Value error, ")[:300]


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route for its schema."""
    return {status: {"model": ErrorAnswer, "description": KINDS[status]} for status in statuses}
