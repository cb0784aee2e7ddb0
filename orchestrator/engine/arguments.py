"""Fill the parameters of a step's function, or of a form, from the state: by name and annotation, with pydantic."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from types import NoneType, SimpleNamespace, UnionType
from typing import Any
from uuid import UUID

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from orchestrator.engine.references import StoredParameter, stored_parameter
from orchestrator.errors import DefinitionError, MissingArgumentError
from orchestrator.types import State, Stored
from orchestrator.workflow import CallbackTerms

ENGINE_PARAMETERS = frozenset({"state", "session", "process_id", "idempotency_key"})
"""Parameters that the engine fills itself, even if the state has keys with these names."""

CALLBACK_PARAMETERS = frozenset({"callback_token", "callback_exchange"})
"""Further ones, for the action of a callback step; the third has the name that the author chose for the route."""


_KEPT = (str, int, float, bool)
"""Types whose values cannot be changed, and which pydantic returns as they are."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter that is filled from the state.

    Args:
        kept: values of exactly this type are passed unchanged, with neither a copy nor pydantic.
    """

    name: str
    adapter: TypeAdapter[Any] | None
    annotation: str
    required: bool
    default: Any
    kept: type | None = None


@dataclass(frozen=True, slots=True)
class Arguments:
    """The parameters of a function.

    Args:
        what: names the function in error texts.
        engine: the names of the parameters that the engine fills itself.
        stored: those that are loaded from the database by a reference in the state.
        parameters: the others.
        is_plain: whether the function runs in a thread, and gets a synchronous session.
        is_async: whether calling the function gives something to await.
    """

    what: str
    engine: frozenset[str]
    parameters: tuple[Parameter, ...]
    stored: tuple[StoredParameter, ...] = ()
    is_plain: bool = False
    is_async: bool = False

    @classmethod
    def of(cls, function: Callable[..., Any] | None, what: str, callback: CallbackTerms | None = None) -> Arguments:
        """Read a function's signature.

        Raises:
            DefinitionError: a parameter cannot be filled, whatever the state.
        """
        if function is None:
            return cls(what, frozenset(), ())
        reserved = ENGINE_PARAMETERS
        if callback is not None:
            reserved = reserved | CALLBACK_PARAMETERS | {callback.route_key}
        engine, parameters, stored = set(), [], []
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise DefinitionError(f"{what}: the parameters of {function!r} cannot be read: {error}") from error
        for parameter in signature.parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise DefinitionError(f"{what} has the parameter '{parameter}': parameters are filled by name only")
            if parameter.name in reserved:
                engine.add(parameter.name)
            elif (loaded := _stored(function, parameter, what)) is not None:
                stored.append(loaded)
            else:
                parameters.append(_parameter(function, parameter, what))
        if "session" in engine and len({is_plain(one) for one in _implementations(function)}) > 1:
            raise DefinitionError(
                f"{what} asks for 'session', and is a plain function for some types and 'async def' for others: make all of"
                " them one or the other"
            )
        return cls(what, frozenset(engine), tuple(parameters), tuple(stored), is_plain(function), is_async(function))

    def references(self, state: State) -> dict[str, UUID | list[UUID]]:
        """Return the references that must be loaded from the database for one call, by parameter name.

        Raises:
            MissingArgumentError: the state holds no reference where there must be one.
        """
        found: dict[str, UUID | list[UUID]] = {}
        for parameter in self.stored:
            reference = parameter.read(state, self.what)
            if reference is not None:
                found[parameter.name] = reference
        return found

    def list_misfits(self, state: State, coming: Collection[str] = ()) -> Iterator[tuple[str, str]]:
        """Yield the name of each parameter that a state cannot fill, with the reason.

        Args:
            coming: keys that the state will have by the time of the call.
        """
        for stored in self.stored:
            if stored.name in coming:
                continue
            try:
                stored.read(state, self.what)
            except MissingArgumentError as error:
                yield stored.name, str(error)
        for parameter in self.parameters:
            if parameter.name in coming:
                continue
            if parameter.name not in state:
                if parameter.required:
                    yield parameter.name, f"as {parameter.annotation}, which the state does not have"
                continue
            try:
                self._convert(parameter, state[parameter.name])
            except MissingArgumentError as error:
                yield parameter.name, str(error)

    def fill(
        self, state: State, engine: Mapping[str, object], loaded: Mapping[str, Stored | list[Stored]] | None = None
    ) -> dict[str, Any]:
        """Return the keyword arguments for one call. The function gets copies: it cannot change the state in place.

        Args:
            loaded: what :meth:`references` named.

        Raises:
            MissingArgumentError: the state lacks a value, or holds one of the wrong type.
        """
        filled: dict[str, Any] = {}
        for name in self.engine:
            if name == "state":
                filled[name] = deepcopy(state)
            elif name in engine:
                filled[name] = engine[name]
            else:
                raise MissingArgumentError(f"{self.what} requests {name!r}, which is not available in this context")
        for stored in self.stored:
            filled[stored.name] = loaded[stored.name] if loaded and stored.name in loaded else stored.default
        for parameter in self.parameters:
            if parameter.name in state:
                filled[parameter.name] = self._convert(parameter, state[parameter.name])
            elif parameter.required:
                known = ", ".join(sorted(state)) or "nothing"
                raise MissingArgumentError(
                    f"{self.what} asks for {parameter.name!r} ({parameter.annotation}), which the state does not have."
                    f" It has: {known}"
                )
            else:
                filled[parameter.name] = parameter.default
        return filled

    def _convert(self, parameter: Parameter, value: object) -> object:
        if parameter.kept is not None and type(value) is parameter.kept:
            return value
        if parameter.adapter is None:
            return deepcopy(value)
        try:
            return parameter.adapter.validate_python(deepcopy(value))
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}" for e in error.errors())
            raise MissingArgumentError(
                f"{self.what} asks for {parameter.name!r} as {parameter.annotation}, but the state holds something"
                f" else: {wrong}"
            ) from error


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether calling ``function`` gives something to await; anything else runs in a thread."""
    while isinstance(function, functools.partial):
        function = function.func
    # The function itself before what it wraps: an async wrapper may wrap a plain function.
    return (
        inspect.iscoroutinefunction(function)
        or inspect.iscoroutinefunction(inspect.unwrap(function))
        # an object whose __call__ is async, not a test for callability
        or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
    )


def is_plain(function: Callable[..., Any]) -> bool:
    """Return whether ``function`` runs in a thread, and so uses its session without awaiting it."""
    generator = inspect.isasyncgenfunction(function) or inspect.isasyncgenfunction(inspect.unwrap(function))
    return not (is_async(function) or generator)


def _implementations(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    registry = getattr(function, "registry", None)
    return list(registry.values()) if hasattr(function, "dispatch") and isinstance(registry, Mapping) else [function]


def call(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call an author's function with its arguments by name; a ``functools.singledispatch`` gets its first by position."""
    if not (hasattr(function, "dispatch") and hasattr(function, "registry") and arguments):
        return function(**arguments)
    first = next(iter(inspect.signature(function).parameters))
    return function(arguments[first], **{name: value for name, value in arguments.items() if name != first})


def _stored(function: Callable[..., Any], parameter: inspect.Parameter, what: str) -> StoredParameter | None:
    if parameter.annotation is parameter.empty:
        return None
    annotation = _resolve(function, parameter, what)
    has_default = parameter.default is not parameter.empty
    return stored_parameter(
        parameter.name, annotation, what, required=not has_default, default=parameter.default if has_default else None
    )


def _parameter(function: Callable[..., Any], parameter: inspect.Parameter, what: str) -> Parameter:
    required = parameter.default is parameter.empty
    default = None if required else parameter.default
    if parameter.annotation is parameter.empty:
        return Parameter(parameter.name, None, "anything", required, default)
    annotation = _resolve(function, parameter, what)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise DefinitionError(
            f"{what} asks for {parameter.name!r} as {_name(annotation)}, which cannot be read from a JSON state"
        ) from error
    # A missing key reads as None where the author allows None, as in other engines of this kind.
    bare = typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation
    optional = typing.get_origin(bare) in (typing.Union, UnionType) and NoneType in typing.get_args(bare)
    kept = annotation if annotation in _KEPT else None
    return Parameter(parameter.name, adapter, _name(annotation), required and not optional, default, kept)


def _resolve(function: Callable[..., Any], parameter: inspect.Parameter, what: str) -> Any:
    """Return the parameter's annotation as a type.

    Each is resolved alone, because other annotations may use names that are imported for type checkers only.
    """
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    inner = inspect.unwrap(inner)
    namespace = getattr(inner, "__globals__", None) or getattr(type(inner).__call__, "__globals__", {})
    holder = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        return typing.get_type_hints(holder, globalns=namespace, include_extras=True)[parameter.name]
    except (NameError, TypeError, SyntaxError, AttributeError) as error:
        raise DefinitionError(
            f"{what}: the annotation of {parameter.name!r} ({parameter.annotation!r}) cannot be resolved: {error}"
        ) from error


def _name(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) and not typing.get_args(annotation) else str(annotation)
