"""Conversations, as they are kept."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text, update

from app.errors import ConversationBusy, ConversationNotFound
from app.services.conversations import heartbeats
from app.services.conversations.heartbeats import Heartbeats
from app.services.conversations.imports import Imports
from app.services.conversations.rows import STALE_AFTER, title_of
from app.services.conversations.search import Search
from app.services.conversations.store import LARGEST_PAGE, ConversationStore, Ticket
from app.storage.database import Database
from app.storage.tables import ConversationMessage, utc_now
from tests.engine.process import wait_until
from tests.postgres import WANTED as ON_POSTGRESQL
from tests.postgres import database_url

Json = dict[str, Any]


@pytest.fixture
def store(database: Database) -> ConversationStore:
    return ConversationStore(database)


@pytest.fixture
def imports(database: Database) -> Imports:
    return Imports(database)


def said(content: str, **more: Any) -> list[Json]:
    return [{"role": "user", "content": content, **more}]


def ask(store: ConversationStore, id: str, content: str) -> Ticket:
    return store.begin(id, said(content), "ollama", "llama3.2:1b")


def answer(store: ConversationStore, ticket: Ticket, content: str, **more: Any) -> bool:
    values = {"status": "complete", "provider": "ollama", "model": "llama3.2:1b", **more}
    return store.finish(ticket, content=content, **values)


def talk(store: ConversationStore, question: str, reply: str = "Yes.", **values: str) -> str:
    id: str = store.create(**values)["id"]
    answer(store, ask(store, id, question), reply)
    return id


def found(store: ConversationStore, query: str) -> list[str]:
    page = store.all(limit=50, offset=0, query=query)
    assert page["total"] == len(page["conversations"])
    return [one["id"] for one in page["conversations"]]


def let_die(database: Database) -> None:
    """Let all makers of answers have been silent for too long."""
    long_ago = utc_now() - STALE_AFTER - timedelta(seconds=1)
    with database.session() as session:
        session.execute(update(ConversationMessage).values(heartbeat_at=long_ago))


def test_question_is_kept_before_the_answer_and_both_after_it(store: ConversationStore) -> None:
    id = store.create(system_prompt="Be brief.")["id"]

    ticket = store.begin(id, said("Why?", images=["aGk="]), "ollama", "llama3.2:1b")
    before = store.get(id, limit=10)
    kept = answer(store, ticket, "So.", data={"thinking": "Hm"}, usage={"completion_tokens": 2})
    after = store.get(id, limit=10)

    assert kept
    assert [(m["seq"], m["role"], m["content"], m["status"]) for m in before["messages"]] == [
        (1, "user", "Why?", "complete"),
        (2, "assistant", "", "pending"),
    ]
    assert before["messages"][0]["data"] == {"images": ["aGk="]}
    reply = after["messages"][1]
    assert (reply["content"], reply["status"], reply["data"]) == ("So.", "complete", {"thinking": "Hm"})
    assert (reply["provider"], reply["model"]) == ("ollama", "llama3.2:1b")
    assert reply["usage"] == {"completion_tokens": 2}
    assert (after["title"], after["system_prompt"], after["message_count"]) == ("Why?", "Be brief.", 2)


def test_turns_are_messages_as_a_provider_is_told_them(store: ConversationStore) -> None:
    id = store.create()["id"]
    calls = [{"function": {"name": "time"}}]
    answer(store, ask(store, id, "When?"), "", data={"tool_calls": calls})
    result = {"role": "tool", "content": "Noon", "tool_call_id": "1"}
    answer(store, store.begin(id, [result], "ollama", "m"), "At noon.", status="stopped")

    assert store.turns(id) == [
        {"role": "user", "content": "When?", "status": "complete", "seq": 1},
        {"role": "assistant", "content": "", "tool_calls": calls, "status": "complete", "seq": 2},
        {"role": "tool", "content": "Noon", "tool_call_id": "1", "status": "complete", "seq": 3},
        {"role": "assistant", "content": "At noon.", "status": "stopped", "seq": 4},
    ]


def test_second_question_during_an_answer_is_refused_and_leaves_no_trace(store: ConversationStore) -> None:
    id = store.create()["id"]
    ticket = ask(store, id, "One?")

    with pytest.raises(ConversationBusy) as caught:
        ask(store, id, "Two?")
    answer(store, ticket, "One.")
    ask(store, id, "Three?")

    assert caught.value.retry_after
    assert [turn["content"] for turn in store.turns(id)] == ["One?", "One.", "Three?", ""]


def test_of_questions_at_once_one_is_answered(tmp_path: Path, store: ConversationStore) -> None:
    id = store.create()["id"]
    other = Database(database_url(tmp_path), tmp_path)  # as another process has it
    stores = [store, ConversationStore(other)] * 4
    barrier = threading.Barrier(len(stores))

    def begin(one: ConversationStore) -> str:
        barrier.wait()
        try:
            ask(one, id, "Me?")
        except ConversationBusy:
            return "busy"
        return "begun"

    with ThreadPoolExecutor(len(stores)) as pool:
        outcomes = sorted(pool.map(begin, stores))
    other.close()

    assert outcomes == ["begun"] + ["busy"] * 7
    assert [turn["seq"] for turn in store.turns(id)] == [1, 2]


def test_answer_of_a_process_that_died_is_told_as_cut(database: Database, store: ConversationStore) -> None:
    id = store.create()["id"]
    ask(store, id, "Why?")
    let_die(database)

    told = store.turns(id)[1]["status"]
    answer(store, ask(store, id, "Again?"), "So.")

    assert told == "cut"
    assert [turn["status"] for turn in store.turns(id)] == ["complete", "cut", "complete", "complete"]


def test_answer_that_was_given_up_for_dead_is_kept_when_it_comes(
    database: Database, store: ConversationStore
) -> None:
    id = store.create()["id"]
    slow = ask(store, id, "Why?")
    let_die(database)
    ask(store, id, "Again?")

    assert answer(store, slow, "Late.")
    assert [turn["content"] for turn in store.turns(id)] == ["Why?", "Late.", "Again?", ""]


def test_touch_keeps_an_answer_alive_with_its_text_so_far(
    database: Database, store: ConversationStore
) -> None:
    id = store.create()["id"]
    ticket = ask(store, id, "Why?")
    let_die(database)
    early = store.turns(id)[1]

    store.touch(ticket, "So fa")

    assert (early["status"], early["content"]) == ("cut", "")
    assert store.turns(id)[1]["status"] == "pending"
    assert store.turns(id)[1]["content"] == "So fa"


def test_touch_after_the_end_changes_nothing(store: ConversationStore) -> None:
    id = store.create()["id"]
    ticket = ask(store, id, "Why?")
    answer(store, ticket, "So.")

    store.touch(ticket, "S")

    assert store.turns(id)[1]["content"] == "So."
    assert not answer(store, ticket, "Twice.")


def test_heartbeats_go_on_after_the_database_failed(
    database: Database, store: ConversationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "HEARTBEAT", 0.01)
    ticket = ask(store, store.create()["id"], "Why?")
    signs = Heartbeats(store)

    def rename(old: str, new: str) -> None:
        with database.session() as session:
            session.execute(text(f"alter table {old} rename to {new}"))

    with signs.of(ticket, lambda: "So"):
        rename("conversation_messages", "elsewhere")
        wait_until(lambda: signs.failure, 20)
        said = signs.failure
        rename("elsewhere", "conversation_messages")
        wait_until(lambda: not signs.failure, 20)
        wait_until(lambda: store.turns(ticket.conversation_id)[1]["content"] == "So", 20)
    signs.close()

    assert said.startswith("Background work fails (heartbeats of answers in conversations): The database")


def test_answer_being_made_is_alive_however_slow_its_client_is(
    database: Database, store: ConversationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "HEARTBEAT", 0.01)
    id = store.create()["id"]
    ticket = ask(store, id, "Why?")
    let_die(database)
    signs = Heartbeats(store)

    with signs.of(ticket, lambda: "So fa"):
        wait_until(lambda: store.turns(id)[1]["content"] == "So fa")
    signs.close()

    assert store.turns(id)[1]["status"] == "pending"


def test_finish_after_a_deletion_tells_that_nothing_is_kept(store: ConversationStore) -> None:
    id = store.create()["id"]
    ticket = ask(store, id, "Why?")

    store.delete(id)

    assert not answer(store, ticket, "So.")
    assert store.all(limit=10, offset=0) == {"conversations": [], "total": 0}


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.get("nope", limit=1),
        lambda store: store.turns("nope"),
        lambda store: ask(store, "nope", "Hi"),
        lambda store: store.update("nope", title="x"),
        lambda store: store.delete("nope"),
        lambda store: store.export("nope"),
    ],
)
def test_unknown_conversation_is_not_found(store: ConversationStore, use: Any) -> None:
    with pytest.raises(ConversationNotFound):
        use(store)


def test_texts_that_a_database_cannot_hold_are_kept_without_what_is_odd(store: ConversationStore) -> None:
    id = store.create(title="a\0b")["id"]
    odd = {"logprob": float("-inf"), "text": "\0\ud800"}

    answer(store, ask(store, id, "nul\0 half \ud800"), "\0\udfff", data=odd, model="m" * 1000)

    whole = store.get(id, limit=10)
    assert whole["title"] == "a\ufffdb"
    assert [message["content"] for message in whole["messages"]] == ["nul\ufffd half ?", "\ufffd?"]
    assert whole["messages"][1]["data"] == {"logprob": None, "text": "\0?"}


def test_messages_come_in_pages_from_the_end(store: ConversationStore) -> None:
    id = store.create()["id"]
    for number in range(3):
        answer(store, ask(store, id, str(number)), "ok")

    last = store.get(id, limit=4)
    first = store.get(id, limit=4, before=last["messages"][0]["seq"])

    assert [message["seq"] for message in last["messages"]] == [3, 4, 5, 6]
    assert last["has_more"]
    assert [message["seq"] for message in first["messages"]] == [1, 2]
    assert not first["has_more"]


def test_conversations_are_listed_from_the_last_used(store: ConversationStore) -> None:
    first, second, third = (talk(store, f"Number {number}") for number in range(3))
    answer(store, ask(store, first, "More"), "ok")

    page = store.all(limit=2, offset=0)
    rest = store.all(limit=2, offset=2)

    assert [one["id"] for one in page["conversations"]] == [first, third]
    assert [one["id"] for one in rest["conversations"]] == [second]
    assert page["total"] == rest["total"] == 3
    assert page["conversations"][0]["message_count"] == 4


@pytest.mark.parametrize(
    ("messages", "title"),
    [
        (said("  Why is\tthe sky blue?\nTell me."), "Why is the sky blue?"),
        (said("\n\n  Second line"), "Second line"),
        (said("word " * 30), "word " * 11 + "word…"),
        (said("x" * 100), "x" * 59 + "…"),
        (said(" \n "), ""),
        (said("\n" * 1_000_000 + "Late"), "Late"),
        ([*said(" "), *said("Second")], "Second"),
        ([{"role": "system", "content": "No"}, *said("Yes")], "Yes"),
        ([], ""),
    ],
)
def test_title_is_the_first_line_cut_at_a_word(messages: list[Json], title: str) -> None:
    assert title_of(messages) == title
    assert len(title) <= 60


def test_title_that_is_given_stays(store: ConversationStore) -> None:
    assert store.get(talk(store, "Why?", title="Sky"), limit=1)["title"] == "Sky"


@pytest.mark.parametrize(
    ("query", "is_found"),
    [
        ("sky", True),
        ("SKY blue", True),
        ('"the sky"', True),
        ('"sky the"', False),
        ("sk", False),
        ("sky green", False),
        ("example", True),
        ("bob@example.com", True),
        ("db.py", True),
        ("Ärger", True),
        ("ärger", True),
        ("div", True),
        ("日本", True),
        ("Ärger 日本", True),
        ("ärger 日本", True),
        ("ÄRGER 日本", True),
        ("++", True),
        ("c++", True),
        ("%", False),
        ("_", False),
        ('"', False),
        ("", True),
        ("   ", True),
    ],
)
def test_search_finds_words_in_both_databases(store: ConversationStore, query: str, is_found: bool) -> None:
    text = "Why is the sky blue, bob@example.com? See /app/db.py: <div> Ärger, 日本語, C++"
    id = talk(store, text, title="Nothing")
    talk(store, "Another", title="Other") if is_found and query.strip() else None

    assert found(store, query) == ([id] if is_found else [])


@pytest.mark.parametrize(
    "query",
    [
        "a OR",
        "NOT",
        "AND AND",
        "NEAR(",
        '"a',
        'a"b"c',
        "a*",
        "^a",
        "text:a",
        "-a",
        "(",
        ")",
        "a & !",
        "\\",
        "a\0b",
        "'",
        "::",
        "%s",
        ":query",
        "{}",
        "<->",
        "🙂",
        "\x02",
        "a" * 200,
        '"' * 200,
        "a " * 100,
    ],
)
def test_search_takes_whatever_is_typed(store: ConversationStore, query: str) -> None:
    talk(store, "Something else")

    assert found(store, query) == []


@given(query=st.text(max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_search_never_fails(store: ConversationStore, query: str) -> None:
    found(store, query.encode("utf-8", "replace").decode())


def test_search_follows_renames_answers_and_deletions(store: ConversationStore) -> None:
    id = talk(store, "Question", "reply", title="Oldname")
    other = talk(store, "Question")

    store.update(id, title="Newname")

    assert (found(store, "oldname"), found(store, "newname"), found(store, "reply")) == ([], [id], [id])
    assert found(store, "question") == [other, id]
    store.delete(id)
    assert (found(store, "newname"), found(store, "reply"), found(store, "question")) == ([], [], [other])


def test_search_tells_the_newest_match_with_its_words_marked(store: ConversationStore) -> None:
    id = talk(store, "Is the sky blue?", "x " * 100 + "The Sky, yes. Skylines no. " + "y " * 100)
    titled = store.create(title="Blue sky")["id"]

    page = store.all(limit=10, offset=0, query="sky")["conversations"]

    matches = {one["id"]: one["match"] for one in page}
    marked = [(part["text"], part["match"]) for part in matches[id]["snippet"]]
    assert matches[id]["seq"] == 2
    assert [text for text, match in marked if match] == ["Sky"]
    assert marked[0][0].startswith("… x ")
    assert marked[0][0].endswith(" The ")
    assert marked[-1][0].endswith("y …")
    assert "Skylines no." in marked[-1][0]
    blue, sky = {"text": "Blue ", "match": False}, {"text": "sky", "match": True}
    assert matches[titled] == {"seq": None, "snippet": [blue, sky]}


@given(st.text(), st.text(min_size=1).filter(str.strip))
def test_snippet_is_a_part_of_the_text(text: str, query: str) -> None:
    parts = Search.parse(query).snippet(text)

    whole = "".join(part["text"] for part in parts)
    assert whole.removeprefix("… ").removesuffix(" …") in text or whole in text


@pytest.mark.skipif(ON_POSTGRESQL, reason="SQLite's")
def test_search_without_fts5_looks_at_every_text(database: Database, store: ConversationStore) -> None:
    with database.engine.begin() as connection:
        names = connection.execute(text("select name from sqlite_master where type = 'trigger'")).scalars()
        for name in [*names]:
            connection.execute(text(f"drop trigger {name}"))
        for name in ("conversation_search", "conversation_search_titles"):
            connection.execute(text(f"drop table {name}"))
    id = talk(store, "Why is the sky blue?", title="100%_sure")

    assert found(store, "SKY blue") == [id]
    assert found(store, "100%_") == [id]
    assert found(store, "100__") == []
    page = store.all(limit=1, offset=0, query="sk")["conversations"]
    assert {"text": "sk", "match": True} in page[0]["match"]["snippet"]


@pytest.mark.parametrize("query", ["needle", "针线", "++"])
def test_search_looks_at_the_first_part_of_a_long_text(store: ConversationStore, query: str) -> None:
    near = talk(store, "x " * 49_000 + f" {query} " + "x " * 10_000)
    talk(store, "x " * 50_000 + f" {query}")

    assert found(store, query) == [near]


def test_page_of_large_messages_is_shorter(store: ConversationStore) -> None:
    id = talk(store, "a" * LARGEST_PAGE, "b" * LARGEST_PAGE)
    answer(store, ask(store, id, "c"), "d")

    last = store.get(id, limit=10)
    before = store.get(id, limit=10, before=2)

    assert [message["content"] for message in last["messages"]] == ["c", "d"]
    assert last["has_more"]
    assert last["message_count"] == 4
    assert [message["seq"] for message in before["messages"]] == [1]  # one message at least
    assert [message["seq"] for message in store.get(id, limit=10, before=3)["messages"]] == [2]
    assert store.get(id, limit=0)["messages"] == []
    assert len(store.export(id)["messages"]) == 4


def test_page_counts_images_too(store: ConversationStore) -> None:
    id = store.create()["id"]
    for _ in range(2):
        image = "data:image/png;base64," + "a" * LARGEST_PAGE
        answer(store, store.begin(id, said("?", images=[image]), "ollama", "m"), "Yes.")

    assert [message["seq"] for message in store.get(id, limit=10)["messages"]] == [4]


@pytest.mark.skipif(not ON_POSTGRESQL, reason="PostgreSQL's")
def test_search_uses_the_index_of_postgresql(database: Database, store: ConversationStore) -> None:
    with database.session() as session:
        messages, _ = Search.parse("sky").match(session)
        session.execute(text("set local enable_seqscan = off"))
        compiled = messages.compile(compile_kwargs={"literal_binds": True})
        sql = f"explain select id from conversation_messages where {compiled}"
        plan = "\n".join(session.connection().exec_driver_sql(sql).scalars())

    assert "conversation_search" in plan


def test_message_longer_than_an_index_takes_is_kept_and_found_by_its_beginning(
    store: ConversationStore,
) -> None:
    id = store.create(title="Long")["id"]

    answer(store, ask(store, id, "begin " + " ".join(map(str, range(300_000)))), "ok")

    assert found(store, "begin") == [id]
    assert found(store, "299999") == []


def test_export_can_be_imported_as_it_was(store: ConversationStore, imports: Imports) -> None:
    id = store.create(title="Sky", system_prompt="Be brief.", provider="ollama", model="a:1")["id"]
    failed = {"error": "It broke.", "error_type": "upstream_error"}
    answer(
        store,
        store.begin(id, said("Why?", images=["aGk="]), "ollama", "a:1"),
        "",
        status="failed",
        error=failed,
    )
    exported = store.export(id)

    (imported,) = imports.save([exported])

    assert imported["id"] != id
    assert store.export(imported["id"]) == exported
    assert found(store, "why") == [id, imported["id"]] or found(store, "why") == [imported["id"], id]


def test_import_of_an_answer_that_was_being_made_is_cut_and_keeps_no_conversation_busy(
    store: ConversationStore, imports: Imports
) -> None:
    id = store.create()["id"]
    ask(store, id, "Why?")

    (imported,) = imports.save([store.export(id)])

    assert store.turns(imported["id"])[1]["status"] == "cut"
    assert imported["title"] == "Why?"
    ask(store, imported["id"], "Again?")
