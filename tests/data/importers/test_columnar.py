"""Parquet and Arrow: rows as they were, nulls that Arrow made left out and counted, everything else refused by name."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.importers.findings import Findings
from hone.data.importers.formats import raw_rows
from hone.data.importers.raw_file import local_file
from hone.errors import DataError


def write(path: Path, table: pa.Table, how: str) -> Path:
    if how == "parquet":
        pq.write_table(table, path, row_group_size=3)
    elif how == "feather":
        import pyarrow.feather

        pyarrow.feather.write_feather(table, path, compression="lz4", chunksize=50)
    else:
        opener = pa.ipc.new_file if how == "file" else pa.ipc.new_stream
        with pa.OSFile(str(path), "wb") as sink, opener(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return path


ENDINGS = {"parquet": "t.parquet", "feather": "t.feather", "file": "t.arrow", "stream": "s.arrow"}
each_way = pytest.mark.parametrize("how", ENDINGS)


def rows(path: Path, findings: Findings | None = None):
    return list(raw_rows(local_file(path, path.name), findings or Findings()))


def read_back(folder: Path, table: pa.Table, how: str, findings: Findings | None = None):
    return rows(write(folder / ENDINGS[how], table, how), findings)


def refusal(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        rows(path)
    assert caught.value.remedy
    return caught.value


TEXTS = ["2024-01-01", "001", "true", "1e5", "null", "", "\u2028", "日本", "\x00", "NaN"]


@each_way
def test_text_stays_text_and_numbers_stay_numbers(tmp_path, how):
    table = pa.table(
        {
            "text": pa.array(TEXTS),
            "large": pa.array(TEXTS, pa.large_string()),
            "coded": pa.array(TEXTS).dictionary_encode(),
            "whole": pa.array([2**63 - 1, -(2**63), *range(8)]),
            "unsigned": pa.array([2**64 - 1, *range(9)], pa.uint64()),
            "real": pa.array([0.1, -0.0, 1e308, *map(float, range(7))]),
            "truth": pa.array([True, False, None] * 3 + [True]),
            "nothing": pa.nulls(10),
            "fixed": pa.array([[1, 2]] * 10, pa.list_(pa.int8(), 2)),
        }
    )
    found = read_back(tmp_path, table, how)
    assert found == table.to_pylist()
    assert [type(value) for value in found[0].values()] == [
        type(value) for value in table.to_pylist()[0].values()
    ]
    assert json.loads(json.dumps(found)) == found


value = st.text(max_size=5) | st.none()
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"])},
    optional={
        "content": value,
        "weight": st.integers(0, 1) | st.none(),
        "call": st.none() | st.fixed_dictionaries({}, optional={"a": value, "b": value}),
    },
)
conversation = st.fixed_dictionaries(
    {"messages": st.lists(message, max_size=3), "note": value, "about": st.fixed_dictionaries({"k": value})}
)  # fmt: skip
_CALL = pa.struct([("a", pa.string()), ("b", pa.string())])
SCHEMA = pa.schema(
    [
        ("messages", pa.list_(pa.struct(
            [("role", pa.string()), ("content", pa.string()), ("weight", pa.int64()), ("call", _CALL)]
        ))),
        ("note", pa.string()),
        ("about", pa.struct([("k", pa.string())])),
    ]
)  # fmt: skip


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


@settings(max_examples=40)
@given(st.lists(conversation, min_size=1, max_size=5), st.sampled_from(list(ENDINGS)))
def test_what_was_written_is_read_without_the_nulls_that_arrow_fills_in(written, how):
    import tempfile

    findings = Findings()
    with tempfile.TemporaryDirectory() as folder:
        table = pa.Table.from_pylist(written, schema=SCHEMA)
        found = read_back(Path(folder), table, how, findings)
    wanted = [{**row, "messages": without_nulls(row["messages"])} for row in written]
    assert found == wanted
    filled = json.dumps(table.column("messages").to_pylist()).count("null")
    assert findings.count("null-fields") == filled


def test_nulls_left_out_are_told_with_the_first_row(tmp_path):
    table = pa.Table.from_pylist(
        [
            {"messages": [{"role": "user", "x": "1"}], "id": None},
            {"messages": [{"role": "user", "x": None}, {"role": "user", "x": None}], "id": None},
            {"messages": [{"role": "user", "x": None}], "id": None},
        ],
        schema=pa.schema(
            [("messages", pa.list_(pa.struct([("role", pa.string()), ("x", pa.string())]))), ("id", pa.string())]
        ),
    )  # fmt: skip
    findings = Findings()
    assert read_back(tmp_path, table, "parquet", findings)[2] == {
        "messages": [{"role": "user"}],
        "id": None,
    }
    [(code, text)] = findings.notices("t.parquet")
    assert code == "null-fields"
    assert "3 null fields" in text
    assert "2 rows, first t.parquet:2" in text


def test_json_extension_values_are_parsed(tmp_path):
    kind = pa.json_(pa.string())
    texts = ['{"a": "001", "b": null}', None, "[1, 12345678901234567890123]"]
    table = pa.table({"t": pa.ExtensionArray.from_storage(kind, pa.array(texts, pa.string()))})
    assert [row["t"] for row in read_back(tmp_path, table, "parquet")] == [
        {"a": "001", "b": None},
        None,
        [1, 12345678901234567890123],
    ]
    bad = pa.table({"t": pa.ExtensionArray.from_storage(kind, pa.array(['{"a": 1, "a": 2}']))})
    error = refusal(write(tmp_path / "bad.parquet", bad, "parquet"))
    assert "'a' stands twice" in error.what
    assert error.where == "bad.parquet:1"


MOMENT = datetime.datetime(2024, 1, 1)
REFUSED = {
    "timestamp": pa.array([MOMENT]),
    "timestamp with zone": pa.array([MOMENT], pa.timestamp("us", "UTC")),
    "date": pa.array([MOMENT.date()]),
    "time": pa.array([MOMENT.time()]),
    "duration": pa.array([datetime.timedelta(1)]),
    "decimal": pa.array([decimal.Decimal("1.5")]),
    "binary": pa.array([b"x"]),
    "fixed binary": pa.array([b"xy"], pa.binary(2)),
    "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    "coded dates": pa.array([MOMENT.date()]).dictionary_encode(),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("deep", [False, True])
def test_types_that_are_no_text_are_refused_by_name_and_never_turned_into_text(
    tmp_path, name, deep
):
    array = REFUSED[name]
    column = array
    if deep:
        inner = pa.StructArray.from_arrays([array], ["x"])
        column = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), inner)
    table = pa.table({"id": pa.array(["1"]), "column": column})
    error = refusal(write(tmp_path / "t.arrow", table, "file"))
    assert "cannot be read as rows of text" in error.what
    assert name.split()[-1].rstrip("s") in error.what or name.startswith("timestamp")
    assert error.where == f"t.arrow {'/column/0/x' if deep else '/column'}"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_has_not_are_refused_with_their_row(tmp_path, number):
    table = pa.table({"a": [1.0] * 5 + [number], "m": [[{"w": 1.0}]] * 6})
    error = refusal(write(tmp_path / "t.parquet", table, "parquet"))
    assert "/a holds" in error.what
    assert error.where == "t.parquet:6"


def test_equal_names_are_refused(tmp_path):
    table = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert "'a'" in refusal(write(tmp_path / "t.arrow", table, "file")).what


@each_way
def test_a_file_that_is_cut_off_is_refused(tmp_path, how):
    table = pa.table({"a": [f"row {i}" for i in range(50)]})
    path = write(tmp_path / ENDINGS[how], table, how)
    whole = path.read_bytes()
    for size in (len(whole) - 1, len(whole) - 9, len(whole) // 2, 20):
        path.write_bytes(whole[:size])
        assert "cut off" in refusal(path).what
    path.write_bytes(b"")
    assert "empty" in refusal(path).what


@each_way
def test_damage_is_refused_or_harmless_and_never_kills(tmp_path, how):
    table = pa.table(
        {"a": ["é" * i for i in range(20)], "m": [[{"k": i, "c": "x"}] for i in range(20)]}
    )
    path = write(tmp_path / ENDINGS[how], table, how)
    whole = path.read_bytes()
    rng = random.Random(0)
    refused = 0
    for _ in range(60):
        broken = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            broken[rng.randrange(8, len(whole) - 8)] = rng.randrange(256)
        path.write_bytes(broken)
        try:
            rows(path)
        except DataError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
@pytest.mark.parametrize(
    "data", [b'{"a": 1}\n{"a": 2}\n', b"a,b\n1,2\n3,4\n5,6", b"\x1f\x8b\x08" + b"x" * 40]
)
def test_a_name_that_promises_another_content(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    error = refusal(path)
    assert "whatever the name says" in error.what
    assert ".jsonl" in error.remedy


def test_other_versions_are_told(tmp_path):
    for name, data, words in [
        ("t.parquet", b"PARE" + b"x" * 20 + b"PARE", "encrypted"),
        ("t.feather", b"FEA1" + b"x" * 20 + b"FEA1", "Feather version 1"),
    ]:
        path = tmp_path / name
        path.write_bytes(data)
        assert words in refusal(path).what


@each_way
def test_memory_is_bounded_by_a_batch_not_by_the_file(tmp_path, how):
    many = pa.table({"a": ["x" * 100_000] * 400})  # 40 MB, one repeated text
    path = tmp_path / ENDINGS[how]
    if how == "parquet":
        pq.write_table(many, path, use_dictionary=False, compression="none", row_group_size=50)
    else:
        write(path, many, how)
    del many
    before = pa.total_allocated_bytes()
    most = 0
    for _ in raw_rows(local_file(path, path.name), Findings()):
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 25 * 2**20
