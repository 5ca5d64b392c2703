"""Writing a GGUF file weight by weight, and reading it back beside the weights that it was made from.

One weight at a time is in memory. Legend: o rows (outputs), i columns, h heads, d features of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from hone.errors import ModelError
from hone.models.gguf_layout import Layout, Tensor, Value
from hone.models.source import weight_files

Form = Literal["f32", "f16", "bf16", "q8_0"]
FORMS: Final[tuple[Form, ...]] = ("f32", "f16", "bf16", "q8_0")
Array = NDArray[np.float32]

_KINDS: Final = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
_FILE_KINDS: Final = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
_FREQUENCIES: Final = "rope_freqs.weight"
_BLOCK: Final = 32  # numbers of a q8_0 block, which have one scale


@dataclass(frozen=True)
class Written:
    """What was written and found to be so when it was read back."""

    path: Path
    num_bytes: int
    tensors: int
    fields: int
    wider: tuple[str, ...]
    """Weights kept in f16 because their rows are no multiple of 32."""
    largest_error: float
    """Largest difference of a number from the weight it was made from, as a share of its row's (q8_0: its
    block's) largest."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "file": str(self.path),
            "bytes": self.num_bytes,
            "tensors": self.tensors,
            "fields": self.fields,
            "kept_in_f16": list(self.wider),
            "largest_error": self.largest_error,
        }


def gguf_bytes(layout: Layout, form: Form) -> int:
    """About how large the file will be."""
    share = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32}[form]
    return int(sum(one.source.count * (4.0 if _is_plain(one) else share) for one in layout.tensors))


def write_gguf(
    path: Path, folder: Path, layout: Layout, fields: Mapping[str, Value], form: Form
) -> Written:
    """Write the weights in `folder` and `fields` (beside the layout's own) to the new file `path`, and read it back.

    Weights of one axis stay float32. Raises ModelError for a number beyond the range of f16, and for a file that
    does not say what it should when it is read.
    """
    said = {**layout.fields, **fields, "general.file_type": int(_FILE_KINDS[form])}
    writer = gguf.GGUFWriter(path, layout.architecture)
    for key, value in said.items():
        _add(writer, key, value)
    kinds = {one.name: _kind_of(one, form) for one in layout.tensors}
    if layout.frequencies:
        half = (len(layout.frequencies),)
        writer.add_tensor_info(_FREQUENCIES, half, np.dtype(np.float32), 4 * half[0])
    for one in layout.tensors:
        _announce(writer, one, kinds[one.name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if layout.frequencies:
        writer.write_tensor_data(np.array(layout.frequencies, dtype=np.float32))
    for one, array in read_tensors(folder, layout.tensors):
        writer.write_tensor_data(_stored(_changed(array, one), kinds[one.name], one))
    writer.close()
    worst = check_gguf(path, folder, layout, said, form)
    wider = tuple(n for n, kind in kinds.items() if form == "q8_0" and kind == _KINDS["f16"])
    return Written(path, path.stat().st_size, len(kinds), len(said), wider, worst)


def read_tensors(folder: Path, tensors: Sequence[Tensor]) -> Iterator[tuple[Tensor, Array]]:
    """Each weight in turn, in float32."""
    homes: dict[str, Path] = {}
    for path in weight_files(folder):
        with cast(Any, safe_open)(path, framework="pt") as file:
            homes |= dict.fromkeys(cast("list[str]", file.keys()), path)
    for one in tensors:
        with cast(Any, safe_open)(homes[one.source.name], framework="pt") as file:
            yield one, cast(Array, file.get_tensor(one.source.name).float().numpy())


def check_gguf(
    path: Path, folder: Path, layout: Layout, fields: Mapping[str, Value], form: Form
) -> float:
    """Read a file back; ModelError where it does not hold the weights in `folder` and `fields`.

    Returns the largest error of a number, as `Written.largest_error`.
    """
    read = gguf.GGUFReader(path)
    for key, wanted in fields.items():
        field = read.fields.get(key)
        if field is None or not _same(field.contents(), wanted):
            raise _damaged(f"{key} does not say what it should", path)
    stored = {one.name: one for one in read.tensors}
    wanted_names = {one.name for one in layout.tensors}
    if layout.frequencies:
        wanted_names.add(_FREQUENCIES)
    if set(stored) != wanted_names:
        raise _damaged(f"weights {sorted(set(stored) ^ wanted_names)[:3]}", path)
    worst = 0.0
    for one, array in read_tensors(folder, layout.tensors):
        found = stored[one.name]
        told = _restored(np.asarray(found.data), found.tensor_type).reshape(array.shape)
        error = _error(_unchanged(told, one), array, found.tensor_type, form)
        if error is None:
            raise _damaged(f"the weight {one.name} is not what it was made from", path)
        worst = max(worst, error)
    return worst


def _damaged(what: str, path: Path) -> ModelError:
    return ModelError(
        f"the GGUF file reads otherwise than it was written: {what}",
        where=str(path),
        remedy="nothing was left; check the disk, and please report this",
    )


def _add(writer: gguf.GGUFWriter, key: str, value: Value) -> None:
    kinds: list[tuple[type, Callable[[str, Any], None]]] = [
        (bool, writer.add_bool),  # before int, which it is
        (str, writer.add_string),
        (int, writer.add_uint32),
        (float, writer.add_float32),
        (list, writer.add_array),
    ]
    next(add for kind, add in kinds if isinstance(value, kind))(key, value)


def _same(found: Any, wanted: Value) -> bool:
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_same, found, cast("list[Any]", wanted)))
    if isinstance(wanted, float):
        return float(found) == float(np.float32(wanted))
    return found == wanted


def _is_plain(tensor: Tensor) -> bool:
    """Whether a weight stays float32: biases and norms."""
    return len(tensor.source.shape) == 1


def _kind_of(tensor: Tensor, form: Form) -> gguf.GGMLQuantizationType:
    if _is_plain(tensor):
        return _KINDS["f32"]
    if form == "q8_0" and tensor.source.shape[-1] % _BLOCK:
        return _KINDS["f16"]
    return _KINDS[form]


def _announce(writer: gguf.GGUFWriter, tensor: Tensor, kind: gguf.GGMLQuantizationType) -> None:
    """Say name, shape and size before the weights come."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = tensor.source.count // block * size
    # The type of the array is only asked whether it is bytes, whose shape would be another one.
    writer.add_tensor_info(tensor.name, tensor.source.shape, np.dtype(np.float32), count, kind)


def _changed(array: Array, tensor: Tensor) -> Array:
    """A weight as llama.cpp wants it.

    Rotary pairs: transformers turns feature j of a head with feature j + d/2, llama.cpp 2j with 2j + 1.
    """
    if tensor.change == "plus one":
        return array + np.float32(1.0)
    if tensor.change == "rotary pairs":
        heads = array.reshape(tensor.heads, 2, -1, *array.shape[1:])  # [h, 2, d/2, ...]
        return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(array.shape)
    return array


def _unchanged(array: Array, tensor: Tensor) -> Array:
    """The inverse of `_changed`, found row by row so that a mistake of one does not hide in the other."""
    if tensor.change == "plus one":
        return array - np.float32(1.0)
    if tensor.change == "rotary pairs":
        size = array.shape[0] // tensor.heads
        rows = [
            head * size + 2 * (row % (size // 2)) + row // (size // 2)
            for head in range(tensor.heads)
            for row in range(size)
        ]
        return array[rows]
    return array


def _stored(array: Array, kind: gguf.GGMLQuantizationType, tensor: Tensor) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        found = gguf.quants.quantize(array, kind)
    narrow = kind == _KINDS["f16"] or kind == _KINDS["q8_0"]
    if narrow and not np.isfinite(gguf.quants.dequantize(found, kind)).all():
        raise ModelError(
            f"the weight {tensor.source.name} has numbers beyond the range of half precision",
            remedy="write it as f32 or bf16 (--gguf-type bf16)",
        )
    return found


def _restored(data: NDArray[Any], kind: gguf.GGMLQuantizationType) -> Array:
    return np.asarray(gguf.quants.dequantize(data, kind), dtype=np.float32)


def _error(told: Array, wanted: Array, kind: gguf.GGMLQuantizationType, form: Form) -> float | None:
    """Largest difference as a share of the largest number of its row or block; None beyond what `kind` explains."""
    del form
    if kind == _KINDS["q8_0"]:
        blocks, want = told.reshape(-1, _BLOCK), wanted.reshape(-1, _BLOCK)
        largest = np.abs(want).max(axis=1, keepdims=True)
        apart = np.abs(blocks - want)
        # Half a step of 1/127, and what rounding the scale to half precision adds.
        bound = largest * (0.5 / 127 + 2.0**-10) + 2.0**-24
        return _share(apart, largest) if bool((apart <= bound).all()) else None
    exact = {_KINDS["f16"]: torch.float16, _KINDS["bf16"]: torch.bfloat16}
    largest = np.abs(wanted).max(axis=-1, keepdims=True)
    apart = np.abs(told - wanted)
    if kind in exact:
        rounded = torch.from_numpy(wanted).to(exact[kind]).float().numpy()
        return _share(apart, largest) if np.array_equal(told, rounded) else None
    # Float32 is exact but for the one that was added to a norm and taken away.
    return _share(apart, largest) if bool((apart <= 2.0**-23 * (1 + largest)).all()) else None


def _share(apart: Array, largest: Array) -> float:
    return float((apart / np.maximum(largest, np.float32(1e-30))).max(initial=0.0))
