"""The Pack's own rules, on random rows with shared beginnings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.layout import branch, lay_out
from hone.pack import Pack
from tests.tiny import rows_with_shared_beginnings


def _packs(seed: int, budget: int, share: bool = True) -> tuple[Pack, ...]:
    rows = rows_with_shared_beginnings(seed)
    branches = [branch(i, row.input_ids, row.weight) for i, row in enumerate(rows)]
    return lay_out([b for b in branches if b], budget=budget, share_prefixes=share, pack=True)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(20, 300))
def test_nodes_cover_the_pack_and_nest(seed: int, budget: int) -> None:
    for pack in _packs(seed, budget):
        pack.check()
        assert [n.start for n in pack.nodes] == [0] + [n.end for n in pack.nodes[:-1]]
        assert pack.nodes[-1].end == pack.num_tokens


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000))
def test_prefix_hash_names_a_token_with_all_before_it(seed: int) -> None:
    """Equal exactly where the tokens from the row's beginning are equal, in any layout."""
    names: dict[tuple[int, ...], set[int]] = {}
    for share, budget in ((True, 500), (True, 40), (False, 500)):
        for pack in _packs(seed, budget, share):
            path: list[int] = []
            for place in range(pack.num_tokens):
                depth = int(pack.position_ids[place])
                path = [*path[:depth], int(pack.input_ids[place])]
                names.setdefault(tuple(path), set()).add(int(pack.prefix_hash[place]))
    assert all(len(hashes) == 1 for hashes in names.values())
    assert len(set.union(*names.values())) == len(names)


def test_check_names_the_broken_rule() -> None:
    pack = _packs(0, 500)[0]
    arrays = {k: v.copy() for k, v in vars(pack).items() if isinstance(v, np.ndarray)}
    arrays["visible_until"] = arrays["visible_until"] * 0
    with pytest.raises(ValueError, match="visible_until lies in"):
        Pack(**{k: arrays[k] for k in Pack.__dataclass_fields__}).check()
