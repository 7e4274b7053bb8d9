"""Search conversations: by words, with SQLite's FTS5 or PostgreSQL's text index, or else in every text."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

from sqlalchemy import ColumnElement, and_, false, func, inspect, select, text
from sqlalchemy.orm import Session

from app.storage.tables import Conversation, ConversationMessage


class SnippetPart(TypedDict):
    """A piece of a found text; ``match`` tells whether it is one of the terms."""

    text: str
    match: bool


class Match(TypedDict):
    """Where the terms of a search were found: the number of the message, or None for the title."""

    seq: int | None
    snippet: list[SnippetPart]


_TERM = re.compile(r'"([^"]*)"|([^\s"]+)')
_WILDCARD = re.compile("[%_/]")
_WORD = re.compile(r"[^\W_]+")
# Thai to Khmer, kana, Chinese, Hangul: scripts without spaces between words. The indexes take a run of such
# letters for one word.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_SEARCHED = 100_000  # characters of a message, as in the indexes
_BEFORE, _AFTER = 60, 120  # characters of a snippet before and after the start of its first match

_FTS5_MESSAGES = (
    "conversation_messages.id in "
    "(select rowid from conversation_search where conversation_search match :query)"
)
_FTS5_TITLES = (
    "conversations.id in "
    "(select id from conversation_search_titles where conversation_search_titles match :query)"
)
# The expressions must equal those of the indexes to the letter; else PostgreSQL does not use the indexes.
_GIN_MESSAGES = (
    "to_tsvector('simple', translate(left(conversation_messages.content, 100000), "
    "'@./_<>&=+:-', '           ')) @@ websearch_to_tsquery('simple', :query)"
)
_GIN_TITLES = (
    "to_tsvector('simple', translate(conversations.title, '@./_<>&=+:-', '           ')) "
    "@@ websearch_to_tsquery('simple', :query)"
)


# A long text would keep other threads waiting while it is compared and cut.
_CONTENT = func.substr(ConversationMessage.content, 1, _SEARCHED)


@dataclass(frozen=True)
class Search:
    """A query: a text must hold all *terms*, each a word, or a phrase that was in quotes."""

    terms: tuple[str, ...]

    @classmethod
    def parse(cls, query: str) -> Search:
        """Parse the text of a query; no text is invalid."""
        found = (phrase or word for phrase, word in _TERM.findall(query.replace("\0", " ")))
        return cls(tuple(term.strip() for term in found if term.strip()))

    @property
    def words(self) -> list[list[str]]:
        """The words of each term that has any; a term may consist of signs alone."""
        found = [_WORD.findall(term) for term in self.terms]
        return [words for words in found if words]

    def match(self, session: Session) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        """Return the SQL conditions for a message and for a title that match."""
        if not self.terms:
            return false(), false()
        dialect = session.get_bind().dialect.name
        by_letters = not self.words or any(_UNSPACED.search(term) for term in self.terms)
        if by_letters or (dialect == "sqlite" and not _has_fts5(session)):
            fold = func.casefold if dialect == "sqlite" else func.lower
            return self._contained(_CONTENT, fold), self._contained(Conversation.title, fold)
        query = " ".join(f'"{" ".join(words)}"' for words in self.words)
        is_sqlite = dialect == "sqlite"
        messages = _FTS5_MESSAGES if is_sqlite else _GIN_MESSAGES
        titles = _FTS5_TITLES if is_sqlite else _GIN_TITLES
        return _condition(messages, query), _condition(titles, query)

    def snippet(self, found: str) -> list[SnippetPart]:
        """Return the part of *found* around its first match, split into matching and other pieces.

        :param found: the searched part of a message, or a title
        """
        pattern, first = self._first(found)
        start, end = _edge(found, first - _BEFORE), _edge(found, first + _AFTER)
        parts = [("… " if start else "", False)]
        position = start
        for match in pattern.finditer(found, first):
            if match.start() >= end:
                break
            parts += [(found[position : match.start()], False), (match[0], True)]
            position = match.end()
        rest = found[position : max(position, end)]
        parts.append((rest if end >= len(found) else f"{rest.rstrip()} …", False))
        return _joined(parts)

    def _contained(self, column: Any, fold: Callable[[Any], Any]) -> ColumnElement[bool]:
        """Return the condition that *column* holds all terms, in any case.

        :param fold: the database's function that removes differences of case
        """
        escaped = [_WILDCARD.sub(r"/\g<0>", term) for term in self.terms]
        return and_(*(fold(column).like(fold(f"%{term}%"), escape="/") for term in escaped))

    def _first(self, found: str) -> tuple[re.Pattern[str], int]:
        """Return the pattern of the terms, and where it matches first; 0 if nowhere.

        The terms are whole words; if these are not in *found*, they are any run of letters.
        """
        whole = ["[\\W_]+".join(words) for words in self.words]
        patterns = [rf"(?<![^\W_])(?:{'|'.join(whole)})(?![^\W_])"] if whole else []
        patterns.append("|".join(map(re.escape, self.terms)))
        for pattern in (re.compile(pattern, re.IGNORECASE) for pattern in patterns):
            if match := pattern.search(found):
                return pattern, match.start()
        return re.compile("(?!)"), 0


def _condition(sql: str, query: str) -> ColumnElement[bool]:
    condition: Any = text(sql).bindparams(query=query)
    return condition  # type: ignore[no-any-return]


def _has_fts5(session: Session) -> bool:
    return inspect(session.connection()).has_table("conversation_search")


def _edge(found: str, position: int) -> int:
    """Return *position*, moved to the beginning of the next word, if that is near."""
    if position <= 0 or position >= len(found):
        return max(0, min(position, len(found)))
    space = found.find(" ", position, position + 20)
    return position if space < 0 else space + 1


def _joined(parts: list[tuple[str, bool]]) -> list[SnippetPart]:
    joined: list[SnippetPart] = []
    for part, is_match in parts:
        if not part:
            continue
        if joined and joined[-1]["match"] == is_match:
            joined[-1]["text"] += part
        else:
            joined.append({"text": part, "match": is_match})
    return joined


def snippets(session: Session, search: Search, ids: list[str]) -> dict[str, Match]:
    """Return the newest matching message of each conversation in *ids*; one without a match is absent."""
    matches, _ = search.match(session)
    newest = (
        select(func.max(ConversationMessage.id))
        .where(ConversationMessage.conversation_id.in_(ids), matches)
        .group_by(ConversationMessage.conversation_id)
    )
    columns = (ConversationMessage.conversation_id, ConversationMessage.seq, _CONTENT)
    rows = session.execute(select(*columns).where(ConversationMessage.id.in_(newest)))
    return {id: {"seq": seq, "snippet": search.snippet(content)} for id, seq, content in rows}
