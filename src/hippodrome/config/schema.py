"""Schemas derived from constructor signatures, checking of specs, and ``build``, which alone makes modules.

Plain parameters (numbers, text, lists of them) are taken as annotated. A parameter annotated with a module
class takes a spec: ``Mixer`` any kind of mixer, ``Block`` that class alone, and ``nn.Module`` any kind of the
family that the parameter is named after (``backbone``: backbones), else of ``layers``.
"""

import inspect
import re
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError, WithJsonSchema, create_model
from pydantic_core import InitErrorDetails, PydanticCustomError

from hippodrome.config.find import FAMILIES, choices, find, kinds, suggest

_PREFIX = "hippodrome."

_SIZES = re.compile(r"d_\w+|head_dim|expand|chunk|groups")
"""Names of arguments that count channels or tokens: none of them may be below one, whatever takes it."""


class _Choice(NamedTuple):
    """What a parameter that takes a module accepts: kinds of a family, whose classes are of ``base``."""

    family: str
    base: type
    only: str | None

    def allowed(self) -> list[str]:
        """The kinds, as the folder has them now."""
        return choices(self.family) if self.only is None else [self.only]


class _Spec(BaseModel):
    """What a checked spec becomes: the constructor's arguments, specs inside checked likewise."""

    model_config = ConfigDict(
        protected_namespaces=(), ser_json_inf_nan="strings", arbitrary_types_allowed=True
    )
    target: ClassVar[type]
    inside: ClassVar[list["_Choice"]]


def validate(spec: Mapping[str, Any], family: str = "models") -> dict[str, Any]:
    """The spec with every default written out, as plain JSON values.

    Raises one ValueError that lists all mistakes with their dotted paths.
    """
    return _checked(spec, family).model_dump(mode="json")


def build(spec: Mapping[str, Any], family: str = "models") -> Any:
    """The module that a spec describes, on PyTorch's default device with its default random state.

    Raises one ValueError that lists all mistakes with their dotted paths, the constructors' own among them.
    """
    problems: list[tuple[str, str]] = []
    module = _construct(_checked(spec, family), "", problems)
    if problems:
        raise ValueError(_report(f"the {family[:-1]} cannot be built", problems))
    return module


def schema(cls: type) -> dict[str, Any]:
    """The JSON schema of a class's specs; kinds inside are unions told apart by ``kind``."""
    family, kind = _home(cls)
    definitions: dict[str, Any] = {}
    pending = [(family, kind)]
    while pending:
        inner_family, inner_kind = pending.pop()
        name = f"{inner_family}.{inner_kind}"
        if name in definitions:
            continue
        model = _spec_model(find(inner_family, inner_kind))
        definitions[name] = _referenced(model.model_json_schema())
        pending.extend((choice.family, k) for choice in model.inside for k in choice.allowed())
    return {**definitions.pop(f"{family}.{kind}"), **({"$defs": definitions} if definitions else {})}


def _referenced(part: Any) -> Any:
    """Our placeholders turned into unions of references; pydantic refuses references not its own."""
    if isinstance(part, dict) and "$kinds" in part:
        family, only = part["$kinds"]
        rest = {key: value for key, value in part.items() if key != "$kinds"}
        union = [{"$ref": f"#/$defs/{family}.{kind}"} for kind in ([only] if only else choices(family))]
        return {**rest, "oneOf": union, "discriminator": {"propertyName": "kind"}}
    if isinstance(part, dict):
        return {key: _referenced(value) for key, value in part.items()}
    return [_referenced(value) for value in part] if isinstance(part, list) else part


def _home(cls: type) -> tuple[str, str]:
    """The family and file of a class of ours."""
    parts = cls.__module__.removeprefix(_PREFIX).split(".")
    if not cls.__module__.startswith(_PREFIX) or parts[0] not in FAMILIES or len(parts) != 2:
        raise ValueError(f"{cls.__name__} lives in {cls.__module__}, not in a file of {', '.join(FAMILIES)}")
    return parts[0], parts[1]


@cache
def _spec_model(cls: type) -> type[_Spec]:
    """The pydantic model of a class's constructor."""
    kind = _home(cls)[1]
    hints = typing.get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    fields: dict[str, Any] = {"kind": (typing.Literal[kind], ...)}
    inside: list[_Choice] = []
    for name, parameter in list(inspect.signature(cls.__init__).parameters.items())[1:]:  # type: ignore[misc]
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or name == "kind":
            raise ValueError(
                f"{cls.__name__}({parameter}): a constructor names its parameters, none of them 'kind'"
            )
        if name not in hints:
            raise ValueError(f"{cls.__name__}({name}) has no annotation: the signature is the configuration")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[name] = (_translate(hints[name], name, inside), default)
    model = create_model(cls.__name__, __base__=_Spec, __doc__=cls.__doc__, **fields)
    model.target, model.inside = cls, inside
    return model


def _translate(annotation: Any, name: str, inside: list[_Choice]) -> Any:
    """An annotation with the module classes in it replaced by checked specs."""
    from torch import nn

    if isinstance(annotation, type) and issubclass(annotation, nn.Module):
        return _choice(annotation, name, inside)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (None, typing.Literal, Annotated) or not arguments:
        return annotation
    translated = tuple(a if a is ... else _translate(a, name, inside) for a in arguments)
    if origin in (typing.Union, types.UnionType):
        return typing.Union[translated]  # noqa: UP007
    return origin[translated]


def _choice(base: type, name: str, inside: list[_Choice]) -> Any:
    """The type of a parameter that takes a module: a spec of one of the kinds that fit ``base``."""
    if base.__module__.startswith(_PREFIX):
        family, file = _home(base)
        choice = _Choice(family, base, file if file in kinds(family) else None)
    else:
        choice = _Choice(f"{name}s" if f"{name}s" in FAMILIES else "layers", base, None)
    inside.append(choice)

    def resolve(value: Any) -> _Spec:
        return _resolve(value, choice.family, choice.allowed(), base)

    placeholder = {"$kinds": [choice.family, choice.only]}
    return Annotated[Any, PlainValidator(resolve), WithJsonSchema(placeholder)]


def _resolve(value: Any, family: str, allowed: list[str], base: type | None = None) -> _Spec:
    """A spec checked against the class of its kind; raises pydantic's error, which knows the path."""
    if not isinstance(value, Mapping):
        raise PydanticCustomError(
            "spec", f"is a {family[:-1]}, so a table with its kind; got {_shown(value)}"
        )
    if "kind" not in value:
        raise _mistake(f"names no kind of {family[:-1]}{suggest('', allowed)}")
    kind = value["kind"]
    if kind not in allowed:
        raise _mistake(f"there is no {family[:-1]} {kind!r} here{suggest(kind, allowed)}")
    cls = find(family, kind)
    if base is not None and not issubclass(cls, base):
        raise _mistake(f"{kind!r} is a {cls.__name__}, which is no {base.__name__}")
    model = _spec_model(cls)
    known = [n for n in model.model_fields if n != "kind"]
    details = [
        InitErrorDetails(
            type=_mistake(f"{kind} has no such key{suggest(key, known)}"),
            loc=(str(key),),
            input=key,
        )
        for key in value
        if key not in model.model_fields
    ]
    try:
        checked = model.model_validate({k: v for k, v in value.items() if k in model.model_fields})
    except ValidationError as error:
        details += [_detail(e) for e in error.errors()]
    if details:
        raise ValidationError.from_exception_data(kind, details)
    return checked


def _detail(error: Any) -> InitErrorDetails:
    """One of pydantic's errors in our words."""
    if error["type"] == "missing":
        message = "is required"
    elif error["type"] == "spec":
        message = error["msg"]
    else:
        message = f"{error['msg'][:1].lower()}{error['msg'][1:]}; got {_shown(error['input'])}"
    return InitErrorDetails(type=_mistake(message), loc=error["loc"], input=error["input"])


def _mistake(message: str) -> PydanticCustomError:
    return PydanticCustomError("spec", "{message}", {"message": message})


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _checked(spec: Mapping[str, Any], family: str) -> _Spec:
    try:
        return _resolve(spec, family, choices(family))
    except ValidationError as error:
        problems = [(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors()]
    except PydanticCustomError as error:
        problems = [("", str(error))]
    raise ValueError(_report(f"the {family[:-1]} is not described rightly", problems))


def _construct(value: Any, path: str, problems: list[tuple[str, str]]) -> Any:
    """A checked value turned into what the constructor takes; a constructor's refusal joins ``problems``."""

    def inner(part: Any, key: object) -> Any:
        return _construct(part, f"{path}.{key}".strip("."), problems)

    if isinstance(value, list | tuple):
        return type(value)([inner(v, i) for i, v in enumerate(value)])
    if isinstance(value, dict):
        return {k: inner(v, k) for k, v in value.items()}
    if not isinstance(value, _Spec):
        return value
    before = len(problems)
    arguments = {
        name: inner(getattr(value, name), name) for name in type(value).model_fields if name != "kind"
    }
    for name, size in arguments.items():
        if _SIZES.fullmatch(name) and isinstance(size, int) and size < 1:
            problems.append((path, f"{name} is a size, 1 or more; got {size}"))
    if len(problems) > before:
        return None
    try:
        return value.target(**arguments)
    except ValueError as error:
        problems.append((path, str(error)))
        return None


def _report(head: str, problems: list[tuple[str, str]]) -> str:
    """All problems in one message; one that comes back in every layer is told once."""
    told: dict[tuple[str, str], list[str]] = {}
    for path, message in problems:
        told.setdefault((re.sub(r"\d+", "*", path), message), []).append(path)
    lines = []
    for (_, message), paths in told.items():
        more = f" (and {len(paths) - 1} more like it)" if len(paths) > 1 else ""
        lines.append(f"{paths[0]}: {message}{more}" if paths[0] else f"{message}{more}")
    return (
        f"{head}: {lines[0]}" if len(lines) == 1 else f"{head}:\n" + "\n".join(f"  {line}" for line in lines)
    )
