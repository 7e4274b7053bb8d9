"""``/api/conversations``."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.body_limits import BODY_LIMIT, CHAT_BODY_LIMIT
from app.services.conversations.export import as_markdown, file_name
from app.services.conversations.store import ConversationStore

Json = dict[str, Any]

URL = "/api/conversations"


@pytest.fixture
def store(app: Flask) -> ConversationStore:
    store: ConversationStore = app.extensions["services"].conversations
    return store


def talk(store: ConversationStore, question: str, reply: str = "So.", **values: str) -> str:
    id: str = store.create(**values)["id"]
    ticket = store.begin(id, [{"role": "user", "content": question}], "ollama", "a:1")
    store.finish(ticket, status="complete", content=reply, provider="ollama", model="a:1")
    return id


def exported(**values: Any) -> Json:
    message = {"role": "user", "content": "Why?"}
    return {"version": 1, "title": "Sky", "messages": [message], **values}


def message(**values: Any) -> Json:
    return exported(messages=[{"role": "user", "content": "ok"}, {"role": "user", "content": "x", **values}])


def _call(**function: Any) -> Json:
    return {"id": "", "type": "function", "function": {"name": "f", **function}}


def test_conversation_is_made_read_changed_and_deleted(client: FlaskClient) -> None:
    made = client.post(URL, json={"title": "Sky", "system_prompt": "Be brief.", "provider": "ollama"})
    assert made.status_code == 201
    path = f"{URL}/{made.json['id']}"

    changed = client.patch(path, json={"title": "Blue", "system_prompt": None, "model": "a:1"})
    read = client.get(path)
    deleted = client.delete(path)
    gone = client.get(path)

    assert made.json["title"] == "Sky"
    assert made.json["created_at"].endswith("Z")
    assert changed.status_code == 200
    assert read.json == {**changed.json, "messages": [], "has_more": False}
    names = ("title", "system_prompt", "provider", "model", "message_count")
    assert [read.json[name] for name in names] == ["Blue", None, "ollama", "a:1", 0]
    assert (deleted.status_code, deleted.data) == (204, b"")
    assert gone.status_code == 404
    assert gone.json["error_type"] == "conversation_not_found"


def test_conversation_can_be_made_of_nothing(client: FlaskClient) -> None:
    response = client.post(URL)

    assert response.status_code == 201
    assert response.json["title"] == ""


def test_conversation_is_answered_with_the_newest_messages(
    client: FlaskClient, store: ConversationStore
) -> None:
    id = talk(store, "Why is the sky blue?", "Because.")

    whole = client.get(f"{URL}/{id}").json
    older = client.get(f"{URL}/{id}?limit=1&before=2").json

    assert [m["content"] for m in whole["messages"]] == ["Why is the sky blue?", "Because."]
    assert whole["messages"][1]["created_at"].endswith("Z")
    assert set(whole["messages"][1]) == {
        *("seq", "role", "content", "data", "status", "error"),
        *("provider", "model", "usage", "created_at"),
    }
    assert [m["seq"] for m in older["messages"]] == [1]


def test_conversations_are_listed_and_searched(client: FlaskClient, store: ConversationStore) -> None:
    first, second = talk(store, "Why is the sky blue?"), talk(store, "And the sea?")

    listed = client.get(f"{URL}?limit=1").json
    found = client.get(f"{URL}?q=sky").json

    assert ([one["id"] for one in listed["conversations"]], listed["total"]) == ([second], 2)
    assert "match" not in listed["conversations"][0]
    assert ([one["id"] for one in found["conversations"]], found["total"]) == ([first], 1)
    assert {"text": "sky", "match": True} in found["conversations"][0]["match"]["snippet"]


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "", {"title": ""}, "title"),
        ("POST", "", {"title": "x" * 201}, "title"),
        ("POST", "", {"title": None}, "title"),
        ("POST", "", {"system_prompt": 1}, "system_prompt"),
        ("POST", "", {"model": " "}, "model"),
        ("POST", "", {"model": "a\0b"}, "model"),
        ("PATCH", "/x", {"model": "a\x7f"}, "model"),
        ("POST", "", {"provider": ""}, "provider"),
        ("POST", "", {"id": "mine"}, "id"),
        ("PATCH", "/x", {"messages": []}, "messages"),
        ("PATCH", "/x", {"title": ["x"]}, "title"),
        ("GET", "?limit=0", None, "limit"),
        ("GET", "?limit=201", None, "limit"),
        ("GET", "?limit=x", None, "limit"),
        ("GET", "?offset=-1", None, "offset"),
        ("GET", "?offset=99999999999999999999", None, "offset"),
        ("GET", f"?q={'x' * 201}", None, "q"),
        ("GET", "?nope=1", None, "nope"),
        ("GET", "/x?limit=1001", None, "limit"),
        ("GET", "/x?before=0", None, "before"),
        ("GET", "/x/export?format=pdf", None, "format"),
    ],
)
def test_bad_input_is_400_and_names_the_field(
    client: FlaskClient, method: str, path: str, body: Json | None, field: str
) -> None:
    response = client.open(URL + path, method=method, json=body)

    assert response.status_code == 400
    assert response.json["error_type"] == "invalid_request"
    assert field in json.dumps(response.json["details"])


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_provider_that_is_none_is_404(client: FlaskClient, store: ConversationStore, method: str) -> None:
    path = URL if method == "POST" else f"{URL}/{store.create()['id']}"

    response = client.open(path, method=method, json={"provider": "nobody"})

    assert response.status_code == 404
    assert response.json["error_type"] == "provider_not_found"


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/export")])
def test_unknown_conversation_is_404(client: FlaskClient, method: str, path: str) -> None:
    response = client.open(f"{URL}/nope{path}", method=method, json={} if method == "PATCH" else None)

    assert response.status_code == 404
    assert response.json["error_type"] == "conversation_not_found"


def test_export_as_json_is_a_file_that_can_be_imported(client: FlaskClient, store: ConversationStore) -> None:
    id = talk(store, 'Why "is"\n the sky; blue?', "Because. 🌈")

    response = client.get(f"{URL}/{id}/export")
    imported = client.post(f"{URL}/import", json=response.json)

    assert response.content_type == "application/json"
    assert response.headers["Content-Disposition"] == 'attachment; filename="why-is.json"'
    assert imported.status_code == 201
    assert imported.json["total"] == 1
    new = imported.json["conversations"][0]["id"]
    assert new != id
    assert client.get(f"{URL}/{new}/export").json == response.json


def test_export_as_markdown_can_be_read(client: FlaskClient, store: ConversationStore) -> None:
    id = talk(store, "Why is the sky blue?", "Because.", system_prompt="Be brief.\nBe kind.")

    response = client.get(f"{URL}/{id}/export?format=markdown")

    assert response.content_type == "text/markdown; charset=utf-8"
    assert response.headers["Content-Disposition"] == 'attachment; filename="why-is-the-sky-blue.md"'
    assert response.text == (
        "# Why is the sky blue?\n\n> Be brief.\n> Be kind.\n\n"
        "## User\n\nWhy is the sky blue?\n\n## Assistant (a:1)\n\nBecause.\n"
    )


def test_markdown_tells_of_thoughts_images_and_what_broke() -> None:
    data = {"thinking": "Hm.", "images": ["a", "b"], "tool_calls": [{}]}
    cut = {"role": "assistant", "model": None, "content": "Bec", "data": data, "status": "cut"}

    text = as_markdown({"title": "", "system_prompt": None, "messages": [cut]})

    parts = ["# Conversation", "## Assistant", "> Hm.", "Bec", "*2 images*", "*1 tool call*"]
    assert text == "\n\n".join([*parts, "*The answer was cut off.*"]) + "\n"


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Why?", "why.md"),
        ('a"; rm -rf /\r\nX-Evil: 1', "a-rm-rf-x-evil-1.md"),
        ("../../etc/passwd", "etc-passwd.md"),
        ("Größe", "groe.md"),
        ("日本", "conversation.md"),
        ("", "conversation.md"),
        ("x" * 200, "x" * 60 + ".md"),
    ],
)
def test_file_name_is_harmless(title: str, name: str) -> None:
    assert file_name(title, "md") == name


@pytest.mark.parametrize("wrap", [lambda c: c, lambda c: [c, c], lambda c: {"conversations": [c]}])
def test_import_takes_one_or_many(client: FlaskClient, wrap: Any) -> None:
    response = client.post(f"{URL}/import", json=wrap(exported()))

    assert response.status_code == 201
    assert response.json["total"] == len(response.json["conversations"])
    assert client.get(URL).json["total"] == response.json["total"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "conversations"),
        ([], "conversations"),
        ({"conversations": {}}, "conversations"),
        ([exported(messages=[1] * 50_001)] * 2, "conversations"),
        ([1], "0"),
        (exported(version=2), "version"),
        ({"title": "x", "messages": []}, "version"),
        (exported(title=1), "title"),
        (exported(title="x" * 201), "title"),
        (exported(model=""), "model"),
        (exported(model="a\0b"), "model"),
        (message(model="a\0b"), "model"),
        (message(provider="a\0b"), "provider"),
        (exported(nope=1), "nope"),
        (exported(created_at="yesterday"), "created_at"),
        (exported(created_at="0001-01-01T00:00:00+14:00"), "created_at"),
        (exported(updated_at="9999-12-31T23:59:59-14:00"), "updated_at"),
        (exported(messages={}), "messages"),
        (exported(messages=[None]), "messages"),
        (exported(messages=[{"content": "x"}]), "role"),
        (message(role="robot"), "role"),
        (message(content=None), "content"),
        (message(content=["x"]), "content"),
        (message(status="fine"), "status"),
        (message(data=[]), "data"),
        (message(data={"x": float("inf")}), "body"),
        (message(data={"x": [float("nan")]}), "body"),
        (message(data=json.loads('{"a":' * 40 + "1" + "}" * 40)), "data"),
        (message(error="broke"), "error"),
        (message(usage=3), "usage"),
        (message(content=""), "content"),
        (message(role="tool"), "tool_call_id"),
        (message(data={"images": [5]}), "images"),
        (message(data={"images": ["aGk="]}), "images"),
        (message(data={"thinking": "Hm."}), "thinking"),
        (message(data={"nope": 1}), "nope"),
        (message(role="assistant", data={"tool_calls": [1]}), "tool_calls"),
        (message(role="assistant", data={"tool_calls": [{}]}), "function"),
        (message(role="assistant", data={"tool_calls": [_call(arguments=[1])]}), "arguments"),
        (message(role="assistant", data={"finish_reason": 1}), "finish_reason"),
        (message(created_at=None), "created_at"),
        (message(seq=7), "seq"),
    ],
)
def test_import_of_what_is_faulty_names_the_field_and_keeps_nothing(
    client: FlaskClient, body: Any, field: str
) -> None:
    response = client.post(f"{URL}/import", json=body)

    assert response.status_code == 400
    assert response.json["error_type"] == "invalid_request"
    assert f'"{field}"' in json.dumps(response.json["details"])
    assert client.get(URL).json["total"] == 0


@pytest.mark.parametrize(
    "said",
    [
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": "", "data": {"thinking": "Hm.", "finish_reason": "length"}},
        {"role": "assistant", "content": "", "data": {"tool_calls": [_call(arguments={"a": 1})]}},
        {"role": "assistant", "content": "", "data": {"tool_calls": [_call(name="", arguments="{oops")]}},
        {"role": "tool", "content": "5", "data": {"tool_name": "f"}},
        {"role": "user", "content": "", "data": {"images": ["data:image/gif;base64,R0lGODlh"]}},
    ],
)
def test_whatever_a_chat_may_have_kept_is_imported_as_it_was(client: FlaskClient, said: Json) -> None:
    whole = exported(messages=[{"data": {}, **said}])

    imported = client.post(f"{URL}/import", json=whole)

    id = imported.json["conversations"][0]["id"]
    (found,) = client.get(f"{URL}/{id}").json["messages"]
    assert {name: found[name] for name in ("role", "content", "data")} == {"data": {}, **said}


def test_import_names_the_place_of_a_fault_in_the_data_of_a_message(client: FlaskClient) -> None:
    response = client.post(f"{URL}/import", json=message(data={"images": [5]}))

    assert response.json["error"].startswith("conversations.0.messages.1.data.images.0: ")


def test_import_names_the_faulty_message_among_many(client: FlaskClient) -> None:
    response = client.post(f"{URL}/import", json=[exported(), message(status="fine")])

    assert response.json["error"].startswith("conversations.1.messages.1.status: ")
    assert client.get(URL).json["total"] == 0


@pytest.mark.parametrize("path", [f"{URL}/import", URL])
def test_import_may_be_larger_than_other_bodies(client: FlaskClient, path: str) -> None:
    limit = CHAT_BODY_LIMIT if path.endswith("import") else BODY_LIMIT

    def post(size: int) -> int:
        body = b'{"nope": "' + b"x" * (size - 12) + b'"}'
        return client.post(path, data=body, content_type="application/json").status_code

    assert (post(limit), post(limit + 1)) == (400, 413)


def test_title_of_an_import_without_one_is_made(client: FlaskClient) -> None:
    response = client.post(f"{URL}/import", json=exported(title=""))

    assert response.json["conversations"][0]["title"] == "Why?"
