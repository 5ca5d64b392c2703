"""Models that answer, and models that are trained call by call: who owns them and where they lie. It knows no weights."""

from __future__ import annotations

from typing import Any, Final

from hone.service.records import Model, Trainable
from hone.service.tables.database import Database, insert, rows
from hone.serving.refusal import Refusal

_MINE: Final = """
SELECT m.* FROM models m WHERE m.owner = ?1
  OR EXISTS (SELECT 1 FROM permissions p WHERE p.checkpoint = m.name AND p.project = ?1)
"""
_LIVE: Final = "status NOT IN ('succeeded', 'failed', 'cancelled')"


class Models(Database):
    """The models of a store."""

    def models(self, owner: str) -> list[Model]:
        """What an owner may use, oldest first."""
        with self.reading() as connection:
            return [Model.of(row) for row in rows(connection, f"{_MINE} ORDER BY m.seq", (owner,))]

    def model(self, name: str, owner: str) -> Model | None:
        """One that an owner may use, None where there is none of that name."""
        with self.reading() as connection:
            words = f"SELECT * FROM ({_MINE}) WHERE name = ?2"  # noqa: S608
            row = connection.execute(words, (owner, name)).fetchone()
        return None if row is None else Model.of(row)

    def any_model(self, name: str) -> Model | None:
        """One by its name, whosever it is: for a server whose askers are known to be let."""
        with self.reading() as connection:
            row = connection.execute("SELECT * FROM models WHERE name = ?", (name,)).fetchone()
        return None if row is None else Model.of(row)

    def delete_model(self, name: str, owner: str) -> Model:
        """Forget an owner's model and, with a tuned one, its checkpoints. Raises Refusal where it is not there or in use."""
        with self.writing() as connection:
            words = "SELECT * FROM models WHERE name = ? AND owner = ?"
            row = connection.execute(words, (name, owner)).fetchone()
            if row is None:
                raise Refusal(
                    404,
                    f"no model {name[:120]!r} of yours is here",
                    param="model",
                    code="model_not_found",
                )
            words = f"SELECT id FROM jobs WHERE model = ? AND {_LIVE} LIMIT 1"  # noqa: S608
            user = connection.execute(words, (name,)).fetchone()
            if user is not None:
                raise Refusal(
                    400,
                    f"{name} is used by {user['id']}, which has not ended; cancel the job, or wait for its end",
                    param="model",
                    code="model_in_use",
                )
            connection.execute("DELETE FROM models WHERE name = ?", (name,))
            return Model.of(row)

    def register_trainable(self, owner: str, project: str, name: str, base: str) -> Trainable:
        """A model to be trained call by call; the one that is there already. Raises Refusal where it has another base."""
        with self.writing() as connection:
            found = _trainable(connection, owner, project, name)
            if found is None:
                values = {"owner": owner, "project": project, "name": name, "base": base, "step": 0}
                insert(
                    connection, "trainables", {**values, "gradient_steps": 0, "created": self.now()}
                )
                found = _trainable(connection, owner, project, name)
                assert found is not None
            if found.base != base:
                raise Refusal(
                    400,
                    f"{project}/{name} is trained from {found.base!r}, not from {base!r}; choose another name",
                    param="base_model",
                    code="base_model_mismatch",
                )
            return found

    def trainable(self, owner: str, project: str, name: str) -> Trainable:
        """One that was registered. Raises Refusal 404."""
        with self.reading() as connection:
            found = _trainable(connection, owner, project, name)
        if found is None:
            raise Refusal(
                404, f"no model {f'{project}/{name}'[:120]!r} is registered here", param="model", code="model_not_found"
            )  # fmt: skip
        return found

    def trainables(self, owner: str) -> list[Trainable]:
        """Every one of an owner, oldest first."""
        with self.reading() as connection:
            words = "SELECT * FROM trainables WHERE owner = ? ORDER BY rowid"
            return [Trainable.of(row) for row in rows(connection, words, (owner,))]


def _trainable(connection: Any, owner: str, project: str, name: str) -> Trainable | None:
    words = "SELECT * FROM trainables WHERE owner = ? AND project = ? AND name = ?"
    row = connection.execute(words, (owner, project, name)).fetchone()
    return None if row is None else Trainable.of(row)
