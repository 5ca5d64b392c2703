"""Secrets do not reach a message."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hone.runs.secrets import HIDDEN, without_secrets

plain = st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=8, max_size=30)


@given(
    plain, plain, plain, st.sampled_from(["WANDB_API_KEY", "HF_TOKEN", "db_password", "MY_SECRET"])
)
def test_the_value_of_a_variable_named_like_a_secret_goes(
    before: str, secret: str, after: str, name: str
) -> None:
    text = without_secrets(f"{before} {secret} {after}", {name: secret, "HOME": "/home"})
    assert secret not in text
    assert HIDDEN in text


def test_users_passwords_and_tokens_in_addresses_go() -> None:
    text = (
        "no route to https://me:pw123@host:5000/api?write_token=abc123&x=1 (postgresql://u:p@db/x)"
    )
    assert without_secrets(text, {}) == (
        "no route to https://***@host:5000/api?write_token=***&x=1 (postgresql://***@db/x)"
    )


def test_other_text_stays() -> None:
    text = "wandb: disk /tmp/a is full; see https://host/x?y=1 or mail me@host"
    assert without_secrets(text, {"SHORT_KEY": "a", "EMPTY_TOKEN": ""}) == text
