"""The weights of a part as constants of C.

Decision: decimals with as many digits as it takes to get the same bits back; hexadecimal floats are
no C++ before 2017, and nobody reads them.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.export._cells import is_wide
from fastlstm.export._network import Dense, Part

WIDTH = 100  # of a line


class Constant(NamedTuple):
    """An array of a file, and whether it may be stored in less than the network computes in."""

    name: str
    values: NDArray[Any]
    is_matrix: bool


def constants_of(part: Part) -> Iterator[Constant]:
    """Return the arrays that the step of a part reads."""
    n = part.name
    if isinstance(part, Dense):
        weight = part.layer.params["weight"]
        bias = part.layer.params.get("bias", np.zeros(len(weight), weight.dtype))
        yield Constant(f"{n}_W", weight.T if is_wide(part) else weight, True)
        yield Constant(f"{n}_b", bias, False)
        return
    w_ih, w_hh = (
        part.blocks_of(part.arrays[name], part.cell.gates, part.gates).transpose(2, 0, 1)
        for name in ("w_ih", "w_hh")
    )
    yield Constant(f"{n}_W", w_ih, True)
    if part.cell.kind != "gru":
        yield Constant(f"{n}_U", w_hh, True)
    elif len(part.cell.bias) == 3:
        yield Constant(f"{n}_U", w_hh[:, 1:], True)
        yield Constant(f"{n}_U_n", w_hh[:, :1], True)
    else:
        yield Constant(f"{n}_U", w_hh[:, [1, 2, 0]], True)
    b = part.arrays.get("b", np.zeros(len(part.cell.bias) * part.H, w_ih.dtype))
    order = part.gates + "q" * ("q" in part.cell.bias)
    yield Constant(f"{n}_b", part.blocks_of(b, part.cell.bias, order), False)
    if "peephole" in part.arrays:
        yield Constant(f"{n}_peephole", part.arrays["peephole"], False)
    if "layer_norm" in part.arrays:
        norm, G = part.arrays["layer_norm"], part.cell.G
        rows = [part.cell.gates.index(letter) for letter in part.gates]
        rows += [G + row for row in rows] + [2 * G, 2 * G + 1]
        yield Constant(f"{n}_norm", norm[rows], False)
    if "w_proj" in part.arrays:
        yield Constant(f"{n}_P", part.arrays["w_proj"].T, True)


def to_bfloat16(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Return float32 rounded to the nearest bfloat16, ties to even, as bits.

    Examples
    --------
    >>> import numpy as np
    >>> hex(int(to_bfloat16(np.array([1.00390625], np.float32))[0]))
    '0x3f80'
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def text_of(constant: Constant, real: str, bfloat16: bool) -> str:
    """Return the definition of a constant."""
    values, kind = constant.values, real
    if bfloat16 and constant.is_matrix:
        values, kind = to_bfloat16(values), "weight"
    elif constant.is_matrix:
        kind = "weight"
    sizes = "".join(f"[{n}]" for n in values.shape)
    suffix = "u" if values.dtype == np.uint16 else "f" * (real == "float")
    return f"static const {kind} {constant.name}{sizes} = {_braces(values, suffix, 0)};\n"


def _braces(values: NDArray[Any], suffix: str, depth: int) -> str:
    indent = "    " * (depth + 1)
    if values.ndim > 1:
        rows = ",\n".join(indent + _braces(row, suffix, depth + 1) for row in values)
        return "{\n" + rows + ",\n" + "    " * depth + "}"
    lines, line = [], ""
    for value in values:
        word = f"{value!s}{suffix}, "
        if len(indent) + len(line) + len(word) > WIDTH:
            lines.append(line.rstrip())
            line = ""
        line += word
    lines.append(line.rstrip().removesuffix(","))
    if len(lines) == 1:
        return "{" + lines[0] + "}"
    return "{\n" + "\n".join(indent + line for line in lines) + "\n" + "    " * depth + "}"
