"""What a chat may ask of Ollama beyond OpenAI's words: its options, the form of the answer, thinking."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, fields, validate

from app.schemas.base import RequestSchema, StrictBool, StrictFloat

THINK_LEVELS = ("low", "medium", "high", "max")

_INT32 = validate.Range(-(2**31), 2**31 - 1)


def _int(low: int | None = None, **metadata: str) -> fields.Int:
    check = _INT32 if low is None else validate.Range(low, 2**31 - 1)
    return fields.Int(strict=True, validate=check, metadata=metadata)


def _float(low: float, high: float | None = None) -> StrictFloat:
    return StrictFloat(validate=validate.Range(low, high))


class OptionsSchema(RequestSchema):
    """Ollama's options (``api/types.go``); it would pass over an unknown one without a word."""

    num_ctx = _int(1, description="The window in tokens; another one than is in force loads the model anew")
    num_predict = _int(-2, description="The most tokens of an answer; -1 for no limit")
    num_keep = _int(-1)
    num_batch = _int(1)
    num_gpu = _int(-1, description="Layers on the GPU")
    num_thread = _int(0)
    main_gpu = _int(0)
    draft_num_predict = _int(0)
    use_mmap = StrictBool()
    seed = _int()
    top_k = _int(0)
    top_p = _float(0, 1)
    min_p = _float(0, 1)
    typical_p = _float(0, 1)
    repeat_last_n = _int(-1)
    temperature = _float(0, 100)
    repeat_penalty = _float(0, 100)
    presence_penalty = _float(-100, 100)
    frequency_penalty = _float(-100, 100)
    stop = fields.List(fields.Str(validate=validate.Length(1)), validate=validate.Length(1, 100))


class ThinkField(fields.Field[Any]):
    """Whether a model is to think, and how much."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool | str:
        if isinstance(value, bool) or (isinstance(value, str) and value in THINK_LEVELS):
            chosen: bool | str = value
            return chosen
        raise ValidationError(f"Give true, false or one of {', '.join(THINK_LEVELS)}.")


class FormatField(fields.Field[Any]):
    """``json``, or a JSON schema that the answer is to follow."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str | dict[str, Any]:
        if value == "json":
            return "json"
        if not isinstance(value, dict) or not value:
            raise ValidationError('Give "json", or a JSON schema as an object.')
        if fault := schema_fault(value):
            raise ValidationError(f"Not a JSON schema: {fault}")
        return value


def schema_fault(schema: dict[str, Any]) -> str:
    """Say what is wrong with a JSON schema, if anything is."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    try:
        rules = Draft202012Validator.META_SCHEMA
        checker = Draft202012Validator(rules, format_checker=Draft202012Validator.FORMAT_CHECKER)
        fault = best_match(checker.iter_errors(schema))
        elsewhere = _reference_elsewhere(schema)
    except RecursionError:
        return "it is nested too deeply"
    if fault is not None:
        return f"{fault.json_path}: {fault.message[:200]}"
    return f"'{elsewhere[:100]}' points out of the schema, and nothing is fetched" if elsewhere else ""


def _reference_elsewhere(schema: Any) -> str:
    """Return a ``$ref`` that leaves *schema*, if there is one."""
    if isinstance(schema, list):
        return next(filter(None, map(_reference_elsewhere, schema)), "")
    if not isinstance(schema, dict):
        return ""
    for name in ("$ref", "$dynamicRef"):
        target = schema.get(name)
        if isinstance(target, str) and not target.startswith("#"):
            return target
    return next(filter(None, map(_reference_elsewhere, schema.values())), "")
