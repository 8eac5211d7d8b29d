"""The two files: header and source, from the parts of a network.

Decision: in a single header every name of file scope begins with that of the network, so that it
may be included anywhere; as a source of its own it needs no such prefixes.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from fastlstm._version import __version__
from fastlstm.export import _activations, _vectors, _wide
from fastlstm.export._activations import EXP, EXP2, EXPM1_2, FAST_ACTIVATIONS, FORMAT
from fastlstm.export._cells import LANES, step_of
from fastlstm.export._golden import Golden
from fastlstm.export._interface import header_of, public_of, self_test_of
from fastlstm.export._network import Network
from fastlstm.export._weights import constants_of, text_of

# macros of gcc and clang, and the bytes of the vectors that they tell of
TARGETS = (
    ("defined(__AVX512F__)", 64),
    ("defined(__AVX__)", 32),
    ("defined(__SSE2__) || defined(__aarch64__) || defined(__wasm_simd128__)", 16),
)
SUMS = """\
/* Sums that are kept in registers at once: 32 of them are there, or 16. */
#if defined(__AVX512F__)
#define SUMS 24
#elif defined(__x86_64__)
#define SUMS 12
#else
#define SUMS 16
#endif

/* Chains that each of N sums is cut into: more than one are faster, and give other bits. */
#if defined(NAME_FAST)
#define CHAINS(N) (SUMS / (N) > 4 ? 4 : SUMS / (N))
#else
#define CHAINS(N) 1
#endif
"""

SNIPPETS = _vectors.SNIPPETS | _activations.SNIPPETS | _wide.SNIPPETS
NUMBER = re.compile(r"(?<![\w.])(-?\d[\d.]*(?:e[-+]?\d+)?)_r\b")


class Files(NamedTuple):
    """The text of the header and of the source."""

    header: str
    source: str


def write(network: Network, name: str, header: str, golden: Golden, *, bfloat16: bool) -> Files:
    """Return the text of both files; names in the source are without prefix."""
    real = "double" if network.dtype == np.float64 else "float"
    steps = "\n".join(step_of(part) for part in network.parts)
    constants = [c for part in network.parts for c in constants_of(part)]
    weights = "\n".join(text_of(c, real, bfloat16) for c in constants)
    source = "\n".join(
        [
            _introduction(network, name, header),
            _lanes(network, real, name),
            _functions(network, name, steps, real, bfloat16=bfloat16),
            weights,
            _zeros(network, steps),
            steps,
            public_of(network, name),
            self_test_of(network, name, golden, real),
        ]
    )
    return Files(_finished(header_of(network, name), real), _finished(source, real))


def joined(files: Files, name: str) -> str:
    """Return one header: the functions are there where NAME_IMPLEMENTATION is defined."""
    upper = name.upper()
    own = {"LANES"} | set(re.findall(r"\b(?:vec|lane|wide)_\w+|\bvec\b", files.source))
    own |= {"CHAINS", "SUMS", "UNROLL", "ALWAYS_INLINE", "weight"}
    definition = re.compile(r"^(?:static|ALWAYS_INLINE) [^(\[=]*?\b(\w+)[(\[]", re.MULTILINE)
    own |= set(definition.findall(files.source))
    source = re.sub(r"\b(?:" + "|".join(sorted(own)) + r")\b", rf"{name}_\g<0>", files.source)
    source = source.replace(f"{name}_LANES", f"{upper}_LANES")
    source = re.sub(r'#include ".*"\n', "", source, count=1)
    once = f"#if defined({upper}_IMPLEMENTATION) && !defined({upper}_IMPLEMENTED)"
    once += f"\n#define {upper}_IMPLEMENTED"
    return f"{files.header}\n{once}\n\n{source}\n#endif\n"


def _finished(text: str, real: str) -> str:
    """Write out the type, its numbers and its format."""
    text = re.sub(r"\breal\b", real, text)
    words = FORMAT[real] | {
        "LOG2_E": "1.4426950408889634_r",
        "TWICE_LOG2_E": "2.8853900817779268_r",
        "LARGEST": "3.4028234663852886e38_r" if real == "float" else "1.7976931348623157e308_r",
    }
    text = re.sub(r"\b(" + "|".join(words) + r")\b", lambda m: words[m[1]], text)
    suffix = "f" if real == "float" else ""
    text = NUMBER.sub(lambda m: m[1] + suffix, text)
    assert "_r" not in re.findall(r"\d_r\b", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


# --- parts of the source --------------------------------------------------------------------------


def _introduction(network: Network, name: str, header: str) -> str:
    upper = name.upper()
    layers = "\n".join(f" *   {line}" for line in network.description)
    return f"""\
/* {name}: a recurrent network, written by fastlstm {__version__} (fastlstm.export.c).
 *
{layers}
 *
 * C99 and C++17, of one thread or many: no memory is allocated, nothing is global but constants.
 * {header} says how it is called.
 *
 * Sums are products and sums one after the other, in a fixed order. Compiled with
 * -ffp-contract=off (which is what -std=c99 does in gcc) they are rounded as they are written, and
 * the results of recurrent layers have the bits of fastlstm's FASTLSTM_ISA=scalar on every target
 * with IEEE arithmetic. With {upper}_FAST defined, and -ffp-contract=fast, it is faster and within
 * 2e-6. {upper}_TEST adds a main that compares with Python's results.
 */
#include "{header}"

#include <float.h>
#include <stdint.h>
#include <string.h>

#if defined(__FAST_MATH__)
#error "{name} needs IEEE arithmetic: compile this file without -ffast-math"
#endif
#if FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16
#error "{name} needs arithmetic in its own type: for 32-bit x86, -msse2 -mfpmath=sse"
#endif
"""


def _most_lanes(network: Network, real: str) -> int:
    """Return how many lanes fit into the smallest layer."""
    smallest = min(min(part.H, part.R) for part in network.recurrences)
    most = min(LANES, 64 // (8 if real == "double" else 4))
    return next(lanes for lanes in (16, 8, 4, 2, 1) if lanes <= min(smallest, most))


def _lanes(network: Network, real: str, name: str) -> str:
    most, size = _most_lanes(network, real), 8 if real == "double" else 4
    smallest = min(min(part.H, part.R) for part in network.recurrences)
    sums = SUMS.replace("NAME", name.upper())
    if most == 1:
        return "\n\n".join(["#define LANES 1", sums])
    macro = f"{name.upper()}_LANES"
    lines = [
        "/* Hidden units at once: a vector of gcc and clang, no longer than the smallest layer.",
        f" * To choose otherwise, define {macro}: 1 for plain C. */",
        f"#if defined({macro})",
        f"#define LANES {macro}",
    ]
    for condition, bytes_ in TARGETS:
        if bytes_ == 64 and smallest < 2 * bytes_ // size:
            continue  # shorter ones, and more of them, wait less for one another
        if bytes_ // size <= most or bytes_ == 64 or most < LANES:
            lanes = min(bytes_ // size, most)
            line = f"#define LANES {lanes}"
            if lines[-1] == line:  # the same as of the target before
                lines[-2] += f" || {condition}"
            else:
                lines += [f"#elif {condition}", line]
    return "\n".join([*lines, "#else", "#define LANES 1", "#endif", "", sums])


def _polynomial(coefficients: Iterable[float], kind: str, suffix: str) -> str:
    """Return the lines that evaluate a polynomial of r, highest power first."""
    first, second, *rest = reversed(tuple(coefficients))
    lines = [f"{kind} p = {float(first)!r}{suffix} * r + {float(second)!r}{suffix};"]
    lines += [f"p = p * r + {float(c)!r}{suffix};" for c in rest]
    return "\n    ".join(lines)


def _in_pairs(coefficients: Iterable[float]) -> str:
    """Return the lines that evaluate a polynomial of r of odd degree, whose pairs need not wait."""
    c = [f"{float(each)!r}_r" for each in coefficients]
    pairs = [f"({odd} * r + {even})" for even, odd in zip(c[::2], c[1::2], strict=True)]
    return f"return ({pairs[2]} * r2 + {pairs[1]}) * r2\n        + {pairs[0]};"


def _functions(network: Network, name: str, steps: str, real: str, *, bfloat16: bool) -> str:
    """Return what the steps call, and what that calls, each before who calls it."""
    snippets = SNIPPETS | (_vectors.BFLOAT16 if bfloat16 else {})
    ordered: list[str] = []

    def add_named(text: str) -> None:
        for name in snippets:
            if name not in ordered and re.search(rf"\b{name}\(", text):
                add_named(snippets[name].replace(f"{name}(", ""))
                ordered.append(name)

    add_named(steps)
    types = _vectors.TYPES if _most_lanes(network, real) > 1 else _vectors.PLAIN_TYPES
    types += f"typedef {'uint16_t' if bfloat16 else 'real'} weight;\n"
    exact = [each for each in ordered if each in FAST_ACTIVATIONS]
    if exact and real == "float":
        ordered = [each for each in ordered if each not in exact]
        fast = [FAST_ACTIVATIONS[each] for each in ("vec_exp", *exact)]
        condition = f"#if defined({name.upper()}_FAST)\n"
        choice = [condition, *fast, "#else\n", *(snippets[each] for each in exact), "#endif\n"]
    else:
        choice = []
    texts = [snippets[each] for each in ordered]
    text = "\n".join([types, _vectors.UNROLLING, *texts, *choice])
    text = text.replace("EXP2_P", _in_pairs(EXP2))
    for mark, table in (("EXPM1_P", EXPM1_2), ("EXP_P", EXP)):
        text = text.replace(f"WIDE_{mark}", _polynomial(table["double"], "double", ""))
        text = text.replace(mark, _polynomial(table[real], "vec", "_r"))
    return text


def _zeros(network: Network, steps: str) -> str:
    """Return the constant from which sums without bias start."""
    if "zeros" not in steps:
        return ""
    longest = max(max(len(part.gates) * part.H, part.R) for part in network.recurrences)
    return f"static const real zeros[{longest}] = {{0}};\n"
