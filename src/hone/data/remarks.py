"""What is noticed in a row on its way and a user should hear of: codes, and their sentences. It knows no rows."""

from __future__ import annotations

from typing import Final


class Remarks:
    """Codes of what was noticed in one row, each once, in order."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    def add(self, code: str, detail: str = "") -> None:
        """Note `code`, with a detail that tells cases of it apart."""
        text = f"{code}:{detail}" if detail else code
        if text not in self.codes:
            self.codes.append(text)


SENTENCES: Final = {
    "turn-order": "turns do not alternate between one side and the other; the row is kept as it is written",
    "system-twice": "the conversation begins with a system turn: the system column beside it was set aside",
    "empty-prompt": "the question is empty",
    "finish-reason": "a logged answer did not end by itself ({}), yet its end is trained",
    "trains-other-roles": "turns of other roles than the assistant's are trained, as the row asks",
    "other-roles-left-out": "a turn of another role has a weight, but data.train_on is 'last': it is not trained",
    "no-end-of-text": "the tokenizer names no end-of-text token: texts are trained without an end",
}
"""The sentence of each code that a shape or its rendering adds; {} stands for the detail."""
