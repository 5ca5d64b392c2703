"""Rows that need no template: Documents and TokenRows to Examples. It knows no messages and no turns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hone.data.control import ControlTokens, unused_characters
from hone.data.conversation import Document, TokenRow
from hone.data.example import Example
from hone.data.pieces import Pieces
from hone.data.tokenizer import TextTokenizer
from hone.errors import DataError
from hone.pack import Float32, Int32


def document_examples(
    documents: Sequence[Document],
    tokenizer: TextTokenizer,
    pieces: Pieces,
    control: ControlTokens,
) -> list[tuple[Example | None, tuple[str, ...]]]:
    """Each text between the tokens that begin and end one, all of it learned; and what was noticed.

    A control token that a text spells stays text. None for a text without letters.
    """
    found = tokenizer.encode_many([document.text for document in documents])
    made: list[tuple[Example | None, tuple[str, ...]]] = []
    for document, ids in zip(documents, found, strict=True):
        remarks = list(document.remarks)
        if not document.text:
            made.append((None, tuple(remarks)))
            continue
        if not control.ids.isdisjoint(ids):
            (mark,) = unused_characters([document.text], 1)
            safe = control.guard(document.text, mark)
            parts = pieces.ids_of(pieces.split(safe), mark)
            ids = [int(i) for part in parts for i in part]
            remarks.append("control-text")
        if tokenizer.adds_bos and tokenizer.bos_id is not None:
            ids = [tokenizer.bos_id, *ids]
        if tokenizer.eos_id is None:
            remarks.append("no-end-of-text")
        else:
            ids = [*ids, tokenizer.eos_id]
        input_ids: Int32 = np.array(ids, dtype=np.int32)
        weight: Float32 = np.ones(len(ids), dtype=np.float32)
        weight[:1] = 0  # nothing comes before the first token
        made.append((Example(input_ids, weight, document.origin), tuple(remarks)))
    return made


def token_example(row: TokenRow, tokenizer: TextTokenizer) -> Example:
    """The row as it is. Raises DataError for an id that the vocabulary does not have."""
    beyond = np.flatnonzero((row.input_ids < 0) | (row.input_ids >= tokenizer.vocab_size))
    for place in beyond.tolist():
        token = int(row.input_ids[place])
        if tokenizer.token(token) == f"<{token}>":
            raise DataError(
                f"token {token} is not in the vocabulary, which has {tokenizer.vocab_size:,} tokens",
                where=f"{row.origin} /input_ids/{place}",
                remedy="name the model whose tokenizer made the rows",
            )
    weight = row.weight.copy()
    weight[:1] = 0  # nothing comes before the first token
    return Example(row.input_ids, weight, row.origin)
