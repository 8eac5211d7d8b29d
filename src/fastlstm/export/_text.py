"""The two files: header and source, from the parts of a network.

Decisions:
a) In a single header every name of file scope begins with that of the network, so that the file may
   be included anywhere; as a source of its own it needs no such prefixes.
b) Nothing in the struct of states depends on the flags of the compiler: files that are compiled for
   other targets may share it.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from fastlstm._version import __version__
from fastlstm.export._cells import LANES, call_of, step_of
from fastlstm.export._golden import Golden
from fastlstm.export._network import Network, Recurrence
from fastlstm.export._vectors import (
    BFLOAT16,
    EXP,
    EXPM1_2,
    FORMAT,
    PLAIN_TYPES,
    SNIPPETS,
    TYPES,
    UNROLLING,
)
from fastlstm.export._weights import Constant, constants_of, text_of

# macros of gcc and clang, and the bytes of the vectors that they tell of
TARGETS = (
    ("defined(__AVX512F__)", 64),
    ("defined(__AVX__)", 32),
    ("defined(__SSE2__) || defined(__aarch64__) || defined(__wasm_simd128__)", 16),
)
SUMS = """\
/* Sums that are kept in registers at once: 32 of them are there, or 16. */
#if defined(__x86_64__) && !defined(__AVX512F__)
#define SUMS 12
#else
#define SUMS 16
#endif
"""
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
            _functions(steps, real, has_lanes=_most_lanes(network, real) > 1, bfloat16=bfloat16),
            weights,
            _zeros(network, steps),
            steps,
            _public(network, name),
            _self_test(network, name, golden, real),
        ]
    )
    return Files(_finished(_header(network, name), real), _finished(source, real))


def joined(files: Files, name: str) -> str:
    """Return one header: the functions are there where NAME_IMPLEMENTATION is defined."""
    upper = name.upper()
    own = {"LANES"} | set(re.findall(r"\b(?:vec|lane|wide)_\w+|\bvec\b", files.source))
    own |= {"SUMS", "UNROLL", "ALWAYS_INLINE", "weight"}
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
 * with IEEE arithmetic. With -ffp-contract=fast, and a target that has fma, it is faster and within
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
    if most == 1:
        return f"#define LANES 1\n\n{SUMS}"
    macro = f"{name.upper()}_LANES"
    lines = [
        "/* Hidden units at once: a vector of gcc and clang, no longer than the smallest layer.",
        f" * To choose otherwise, define {macro}: 1 for plain C. */",
        f"#if defined({macro})",
        f"#define LANES {macro}",
    ]
    for condition, bytes_ in TARGETS:
        if bytes_ // size <= most or bytes_ == 64 or most < LANES:
            lanes = min(bytes_ // size, most)
            line = f"#define LANES {lanes}"
            if lines[-1] == line:  # the same as of the target before
                lines[-2] += f" || {condition}"
            else:
                lines += [f"#elif {condition}", line]
    return "\n".join([*lines, "#else", "#define LANES 1", "#endif", "", SUMS])


def _polynomial(coefficients: Iterable[float], kind: str, suffix: str) -> str:
    """Return the lines that evaluate a polynomial of r, highest power first."""
    first, second, *rest = reversed(tuple(coefficients))
    lines = [f"{kind} p = {float(first)!r}{suffix} * r + {float(second)!r}{suffix};"]
    lines += [f"p = p * r + {float(c)!r}{suffix};" for c in rest]
    return "\n    ".join(lines)


def _functions(steps: str, real: str, *, has_lanes: bool, bfloat16: bool) -> str:
    """Return what the steps call, and what that calls, each before who calls it."""
    snippets = SNIPPETS | (BFLOAT16 if bfloat16 else {})
    ordered: list[str] = []

    def add_named(text: str) -> None:
        for name in snippets:
            if name not in ordered and re.search(rf"\b{name}\(", text):
                add_named(snippets[name].replace(f"{name}(", ""))
                ordered.append(name)

    add_named(steps)
    types = TYPES if has_lanes else PLAIN_TYPES
    types += f"typedef {'uint16_t' if bfloat16 else 'real'} weight;\n"
    text = "\n".join([types, UNROLLING, *(snippets[name] for name in ordered)])
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


# --- what the user calls --------------------------------------------------------------------------


def _fields(network: Network) -> str:
    return "\n".join(
        f"    real {part.name}_{letter}[{part.R if letter == 'h' else part.H}];"
        for part in network.recurrences
        for letter in part.cell.states
    )


def _header(network: Network, name: str) -> str:
    upper = name.upper()
    usage, functions = _of_steps(network, name) if network.streams else _of_whole(network, name)
    return f"""\
/* {name}: {", ".join(network.description)}.
 * Written by fastlstm {__version__}.
 *
{usage}
 */
#ifndef {upper}_H
#define {upper}_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define {upper}_INPUT_SIZE {network.input_size}
#define {upper}_OUTPUT_SIZE {network.output_size}

typedef struct {{
{_fields(network)}
}} {name}_state;

{functions}
#ifdef __cplusplus
}}
#endif

#endif
"""


def _of_steps(network: Network, name: str) -> tuple[str, str]:
    """Return the header's usage and functions of a network that goes step by step."""
    upper = name.upper()
    usage = f"""\
 *     {name}_state state;
 *     {name}_reset(&state);
 *     {name}_step(&state, x, y);      again and again: one time step each
 *
 * x ({upper}_INPUT_SIZE,) in, y ({upper}_OUTPUT_SIZE,) out; they may not overlap. A state belongs
 * to one sequence and may be copied; any number of threads may run states of their own."""
    functions = f"""\
/* The state before a sequence: zero. */
void {name}_reset({name}_state *state);

/* One time step. */
void {name}_step({name}_state *state, const real *x, real *y);

/* T time steps: x (T, {upper}_INPUT_SIZE), y (T, {upper}_OUTPUT_SIZE). */
void {name}_run({name}_state *state, const real *x, real *y, size_t T);
"""
    return usage, functions


def _of_whole(network: Network, name: str) -> tuple[str, str]:
    """Return the same of a network that reads from the end too."""
    upper = name.upper()
    buffers = min(len(network.groups) - 1, 2)
    usage = f"""\
 *     {name}_run(x, y, work, T);
 *
 * A whole sequence at once, since some layers read it from its end. Any number of threads may do
 * so, each with its own work."""
    functions = f"""\
/* Numbers that `work` has room for. */
#define {upper}_WORK(T) ((size_t)(T) * {buffers * _widest(network)})

/* T time steps: x (T, {upper}_INPUT_SIZE), y (T, {upper}_OUTPUT_SIZE); they may not overlap. */
void {name}_run(const real *x, real *y, real *work, size_t T);
"""
    return usage, functions


def _widest(network: Network) -> int:
    """Return how many numbers of a step go from one layer to the next, at most."""
    widths = [sum(part.output_size for part in group) for group in network.groups[:-1]]
    return max(widths, default=0)


def _public(network: Network, name: str) -> str:
    if not network.streams:
        return _public_whole(network, name)
    upper = name.upper()
    lines, buffers, x = [], [], "x"
    for group in network.groups:
        (part,) = group
        last = group is network.groups[-1]
        if isinstance(part, Recurrence):
            lines.append(call_of(part, x, "", "state->"))
            x = f"state->{part.name}_h"
            if last:
                lines.append(f"memcpy(y, {x}, sizeof {x});")
        else:
            y = "y" if last else f"{part.name}_y"
            if not last:
                buffers.append(f"real {y}[{part.output_size}];")
            lines.append(call_of(part, x, y, ""))
            x = y
    body = "\n".join(f"    {line}" for line in [*buffers, *lines])
    return f"""\
void {name}_reset({name}_state *state) {{ memset(state, 0, sizeof *state); }}

void {name}_step({name}_state *state, const real *x, real *y)
{{
{body}
}}

void {name}_run({name}_state *state, const real *x, real *y, size_t T)
{{
    for (size_t t = 0; t < T; t++)
        {name}_step(state, x + t * {upper}_INPUT_SIZE, y + t * {upper}_OUTPUT_SIZE);
}}
"""


def _public_whole(network: Network, name: str) -> str:
    """Return `run` layer by layer, each over all steps, in the order in which it reads them."""
    lines = [f"{name}_state state;", "memset(&state, 0, sizeof state);"]
    if len(network.groups) == 1:
        lines.append("(void)work;")
    source, width = "x", network.input_size
    for k, group in enumerate(network.groups):
        out_width = sum(part.output_size for part in group)
        target = "y"
        if k < len(network.groups) - 1:
            target = "work" if k % 2 == 0 else f"(work + T * {_widest(network)})"
        offset = 0
        for part in group:
            x = f"&{source}[t * {width}]"
            y = f"&{target}[t * {out_width}{f' + {offset}' if offset else ''}]"
            body = [call_of(part, x, y, "state.")]
            loop = "for (size_t t = 0; t < T; t++) {"
            if isinstance(part, Recurrence):
                h = f"state.{part.name}_h"
                body.append(f"memcpy({y}, {h}, sizeof {h});")
                if part.from_end:
                    loop = "for (size_t t = T; t-- > 0;) {"
            lines += [loop, *(f"    {line}" for line in body), "}"]
            offset += part.output_size
        source, width = target, out_width
    body_text = "\n".join(f"    {line}" for line in lines)
    return f"""\
void {name}_run(const real *x, real *y, real *work, size_t T)
{{
{body_text}
}}
"""


def _self_test(network: Network, name: str, golden: Golden, real: str) -> str:
    upper = name.upper()
    T = len(golden.x)
    tolerance = "2e-6" if real == "float" else "1e-12"
    x, y = (
        text_of(Constant(f"golden_{letter}", values, False), real, False)
        for letter, values in zip("xy", golden, strict=True)
    )
    if network.streams:
        memory = f"{name}_state state;"
        run = f"{name}_reset(&state);\n    {name}_run(&state, &golden_x[0][0], &y[0][0], {T});"
    else:
        memory = f"real work[{upper}_WORK({T}) + 1];"
        run = f"{name}_run(&golden_x[0][0], &y[0][0], work, {T});"
    return f"""\
#ifdef {upper}_TEST
#include <stdio.h>

/* Input and output of fastlstm with FASTLSTM_ISA=scalar, linear maps summed as they are here. */
{x}
{y}
int main(void)
{{
    {memory}
    real y[{T}][{upper}_OUTPUT_SIZE];
    double largest = 0;
    unsigned same = 0;
    {run}
    for (size_t t = 0; t < {T}; t++)
        for (size_t j = 0; j < {upper}_OUTPUT_SIZE; j++) {{
            const double difference = (double)y[t][j] - (double)golden_y[t][j];
            const double size = difference < 0 ? -difference : difference;
            largest = size > largest ? size : largest;
            same += memcmp(&y[t][j], &golden_y[t][j], sizeof(real)) == 0;
        }}
    printf("{name}: largest difference %g, %u of %u values have the same bits\\n",
           largest, same, {T}u * {upper}_OUTPUT_SIZE);
    return largest <= {tolerance} ? 0 : 1;
}}
#endif
"""
