"""What users of an exported file see: the header, its functions, the self-test.

Decision: nothing in the struct of states depends on the flags of the compiler: files that are
compiled for other targets may share it.
"""

from fastlstm._version import __version__
from fastlstm.export._cells import call_of
from fastlstm.export._golden import Golden
from fastlstm.export._network import Network, Recurrence
from fastlstm.export._weights import Constant, text_of


def _fields(network: Network) -> str:
    return "\n".join(
        f"    real {part.name}_{letter}[{part.R if letter == 'h' else part.H}];"
        for part in network.recurrences
        for letter in part.cell.states
    )


def header_of(network: Network, name: str) -> str:
    """Return the text of the header."""
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


def public_of(network: Network, name: str) -> str:
    """Return the functions that the header declares."""
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


def self_test_of(network: Network, name: str, golden: Golden, real: str) -> str:
    """Return the main that compares with Python."""
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
