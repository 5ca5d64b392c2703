"""Configuration files: YAML 1.2 and JSON, their lines, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.config.files import read_config
from hone.config.values import Node
from hone.errors import ConfigError, DiskError


def write(folder: Path, content: str | bytes, name: str = "c.yaml") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def plain(node: Node) -> object:
    if node.entries is not None:
        return {key: plain(each) for key, each in node.entries.items()}
    if node.items is not None:
        return [plain(each) for each in node.items]
    return node.scalar


YAML = """\
# a comment
train:
  learning_rate: 1e-4   # no dot
  epochs: 2
data: {path: 2024-01-01, columns: {user: question}}
text: |
  two
  lines
tagged: !!str 5
quoted: "null"
empty:
shared: &here [1, 2]
again: *here
"""


def test_yaml_is_1_2_and_keeps_its_lines(tmp_path: Path) -> None:
    root = read_config(write(tmp_path, YAML))
    assert plain(root) == {
        "train": {"learning_rate": 1e-4, "epochs": 2},
        "data": {"path": "2024-01-01", "columns": {"user": "question"}},
        "text": "two\nlines\n",
        "tagged": "5",
        "quoted": "null",
        "empty": None,
        "shared": [1, 2],
        "again": [1, 2],
    }
    assert root.entries is not None
    train = root.entries["train"].entries
    assert train is not None
    assert train["learning_rate"].line == 3
    assert train["learning_rate"].plain == "1e-4"
    assert root.entries["empty"].line == 11
    assert root.entries["quoted"].plain is None


def test_json_has_the_same_meaning_and_lines(tmp_path: Path) -> None:
    text = '{\n "train": {"epochs": 2,\n  "betas": [0.9, 1e-4]},\n "s": "\\ud83d\\ude00", "n": null, "e": {}, "l": []}\n'
    root = read_config(write(tmp_path, text, "c.json"))
    assert plain(root) == {
        "train": {"epochs": 2, "betas": [0.9, 1e-4]}, "s": "😀", "n": None, "e": {}, "l": [],
    }  # fmt: skip
    assert root.entries is not None
    assert root.entries["train"].entries is not None
    assert root.entries["train"].entries["betas"].line == 3


@pytest.mark.parametrize("content", ["", "\n", "# only a comment\n", "---\n"])
@pytest.mark.parametrize("name", ["c.yaml", "c.yml"])
def test_an_empty_file_says_nothing(tmp_path: Path, content: str, name: str) -> None:
    assert plain(read_config(write(tmp_path, content, name))) == {}


REFUSED_YAML = {
    "train:\n  epochs: 1\n  epochs: 2\n": ("stands twice", "line 3"),
    "train: [1\nmodel: x\n": ("not YAML", "line 2"),
    "a: b: c\n": ("not YAML", "line 1"),
    "train:\n\tepochs: 1\n": ("not YAML", "line 2"),
    "a: !!python/object/apply:os.system [x]\n": ("not allowed", "line 1"),
    "a:\n  b: !mine 3\n": ("not allowed", "line 2"),
    'a: !!int "3"\n': ("not allowed", "line 1"),
    "a: 1\n---\nb: 2\n": ("not YAML", "line 2"),
    "- 1\n- 2\n": ("is a mapping", ""),
    "just words\n": ("is a mapping", ""),
    "? [1, 2]\n: 3\n": ("a key must be", "line 1"),
    "a: *nowhere\n": ("not YAML", "line 1"),
    "a: &x [*x]\n": ("more values", "line 1"),
    "a: \x00\n": ("not YAML", ""),
}
REFUSED_JSON = {
    '{"a": 1, "a": 2}': ("stands twice", "line 1"),
    '{"a": NaN}': ("NaN", ""),
    '{"a": -Infinity}': ("Infinity", ""),
    '{"a": 1': ("not JSON", "line 1"),
    '{"a" 1}': ("not JSON", "line 1"),
    '{"a": 1,\n "b": }': ("not JSON", "line 2"),
    '{"a": 1}\n{"b": 2}': ("after the end", "line"),
    "{'a': 1}": ("not JSON", "line 1"),
    '{"a": 01}': ("not JSON", "line 1"),
    "[1]": ("is a mapping", ""),
    "[" * 60: ("too deeply", "line 1"),
}


@pytest.mark.parametrize(
    ("name", "content", "what", "where"),
    [("c.yaml", c, *rest) for c, rest in REFUSED_YAML.items()]
    + [("c.json", c, *rest) for c, rest in REFUSED_JSON.items()],
)
def test_refused_with_file_and_line(
    tmp_path: Path, name: str, content: str, what: str, where: str
) -> None:
    path = write(tmp_path, content, name)
    with pytest.raises(ConfigError, match=what) as caught:
        read_config(path)
    assert str(path) in (caught.value.where or "")
    assert where in (caught.value.where or "")


def test_aliases_cannot_unfold_without_end(tmp_path: Path) -> None:
    doubled = "a0: &a0 [x, x]\n" + "".join(
        f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)
    )
    with pytest.raises(ConfigError, match="more values"):
        read_config(write(tmp_path, doubled))


def test_not_text_not_there_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="UTF-8") as caught:
        read_config(write(tmp_path, b"a: 1\nb: \xff\n"))
    assert "line 2" in (caught.value.where or "")
    with pytest.raises(ConfigError, match="no such"):
        read_config(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="folder"):
        read_config(tmp_path)
    with pytest.raises(ConfigError, match="bytes"):
        read_config(write(tmp_path, "#" * 1_000_001))
    with pytest.raises(DiskError):
        read_config(tmp_path / "c.yaml" / "below.yaml")


def test_a_byte_order_mark_is_no_key(tmp_path: Path) -> None:
    assert plain(read_config(write(tmp_path, b"\xef\xbb\xbftrain:\n  epochs: 1\n"))) == {
        "train": {"epochs": 1}
    }
