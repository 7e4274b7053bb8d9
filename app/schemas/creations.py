"""Models that are made here: from another one, or from an uploaded file."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, fields, validate

from app.schemas.base import RequestSchema, StrictBool, StrictFloat, UpstreamSchema, not_blank
from app.schemas.models import Digest
from app.schemas.pulls import PullPartSchema

_TEXT_LIMIT = 500_000  # characters


class TextsField(fields.Field[Any]):
    """A list of texts; a single text is a list of one."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> list[str]:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
            raise ValidationError("Give a text, or a list of texts that are not empty.")
        return texts


def _count(minimum: int, description: str) -> fields.Int:
    return fields.Int(
        strict=True, validate=validate.Range(min=minimum), metadata={"description": description}
    )


class ParametersSchema(RequestSchema):
    """The parameters of a Modelfile, which the model's chats then start from."""

    num_ctx = _count(1, "Tokens that the model looks at")
    num_predict = _count(-2, "Tokens of an answer at most; -1 for no limit")
    num_keep = _count(-1, "Tokens of the beginning that are never dropped")
    num_batch = _count(1, "Tokens of a prompt that are read at once")
    num_gpu = _count(-1, "Layers on the GPU")
    num_thread = _count(0, "Threads; 0 lets Ollama choose")
    main_gpu = _count(0, "The GPU for small tensors")
    draft_num_predict = _count(0, "Tokens that a draft model guesses ahead")
    use_mmap = StrictBool()
    seed = fields.Int(strict=True)
    top_k = _count(0, "Tokens to choose from")
    top_p = StrictFloat(validate=validate.Range(0, 1))
    min_p = StrictFloat(validate=validate.Range(0, 1))
    typical_p = StrictFloat(validate=validate.Range(0, 1))
    temperature = StrictFloat(validate=validate.Range(min=0))
    repeat_last_n = _count(-1, "Tokens in which repetitions are looked for; -1 for num_ctx")
    repeat_penalty = StrictFloat()
    presence_penalty = StrictFloat()
    frequency_penalty = StrictFloat()
    stop = TextsField(metadata={"description": "Where an answer ends"})


class CreateSchema(RequestSchema):
    """What to make: from an installed model, or from the GGUF file that is the body.

    With a file, the fields are parameters of the query.
    """

    model = fields.Str(
        required=True,
        validate=not_blank("Model name"),
        metadata={"label": "Model name", "description": "The name of the new model"},
    )
    origin = fields.Str(data_key="from", metadata={"description": "An installed model; not with a file"})
    digest = Digest(metadata={"description": "The SHA-256 of the file, to be checked; only with a file"})
    system = fields.Str(
        validate=validate.Length(max=_TEXT_LIMIT), metadata={"description": "Its system prompt"}
    )
    template = fields.Str(
        validate=validate.Length(1, _TEXT_LIMIT),
        metadata={"description": "Its prompt template, in Go's language"},
    )
    parameters = fields.Nested(ParametersSchema)
    license = TextsField(metadata={"description": "A text, or a list of them"})
    overwrite = fields.Bool(
        load_default=False,
        truthy={True, "true"},
        falsy={False, "false"},
        metadata={"description": "Replace a model that has this name already"},
    )
    stream = fields.Bool(
        load_default=False,
        truthy={True, "true"},
        falsy={False, "false"},
        metadata={"description": "Answer as an event stream: `progress`, then `done` or `error`"},
    )


class CreatedSchema(UpstreamSchema):
    """A model that was made."""

    model = fields.Str()
    created = fields.Bool()
    status_log = fields.List(fields.Nested(PullPartSchema), metadata={"description": "Ollama's own lines"})
