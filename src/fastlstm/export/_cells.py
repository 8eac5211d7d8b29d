"""C of one step of each part of a network: the equations of the cell, under their letters.

Decisions:
a) Only what the layer at hand has is written: no option is decided in C.
b) First all sums of a step, then the cell, a vector of units after the other. A sum is one chain in
   the order of its index, bias first: the order of csrc/tile.h, hence its bits.
c) Gates stand in the order in which what is added to them is contiguous: of the GRU n, r, z, q, of
   which x adds to the first three and h to the last three; of the LSTM f, i, g, o.
d) What a cell reads (c, and h but for the LSTM) stays until its end, since the last vector may
   overlap.
"""

from collections.abc import Sequence

from fastlstm._args.numbers import ACTIVATIONS, Activation
from fastlstm.export._network import Dense, Part, Recurrence

LANES = 16  # at most, of any target: a map with fewer outputs is written lane by lane

Lines = list[str]


def step_of(part: Part) -> str:
    """Return the function of C that makes a step."""
    if isinstance(part, Dense):
        return _dense(part)
    body = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}[part.cell.kind](part)
    state = "real *h, real *c" if part.cell.has_c else "real *h"
    return "\n".join(
        [
            *_comment(part),
            f"static void {part.name}_step({state}, const real *x)",
            "{",
            *_indented(body),
            "}",
            "",
        ]
    )


def call_of(part: Part, x: str, y: str, state: str) -> str:
    """Return the statement that makes a step: from `x`, and to `y` if it is a linear map."""
    if isinstance(part, Dense):
        return f"{part.name}_step({y}, {x});"
    names = [f"{state}{part.name}_{letter}" for letter in part.cell.states]
    return f"{part.name}_step({', '.join((*names, x))});"


# --- pieces ---------------------------------------------------------------------------------------


def _indented(lines: Sequence[str]) -> Lines:
    return [f"    {line}" if line else line for line in lines]


def _comment(part: Recurrence) -> Lines:
    also = f" c ({part.H},)," if part.cell.has_c else ""
    lines = [
        f"{part.cell.kind.upper()}: x ({part.I},) in, h ({part.R},),{also} in and out.",
        "",
        *(f"    {line}" for line in _equations(part)),
    ]
    return ["/* " + lines[0], *(f" * {line}".rstrip() for line in lines[1:]), " */"]


def _equations(part: Recurrence) -> Lines:
    """Return what the cell is, as a paper has it; all products but W x and U h are by element."""
    name = [activation[0] for activation in part.activations]
    has = part.arrays.keys()

    def b(gate: str) -> str:
        return f" + b_{gate}" if "b" in has else ""

    if part.cell.kind == "rnn":
        lines = [f"h = {name[0]}(W x + U h{' + b' * ('b' in has)})"]
    elif part.cell.kind == "gru":
        q = f"r (U_n h{b('q')})" if len(part.cell.bias) == 4 else "U_n (r h)"
        lines = [
            f"r = {name[0]}(W_r x + U_r h{b('r')})",
            f"z = {name[0]}(W_z x + U_z h{b('z')})",
            f"n = {name[1]}(W_n x{b('n')} + {q})",
            "h = z h + (1 - z) n",
        ]
    else:

        def z(gate: str) -> str:
            c = f" + p_{gate} c" if "peephole" in has and gate != "g" else ""
            if "layer_norm" in has:
                return f"a_{gate} N(W_{gate} x) + e_{gate} N(U_{gate} h){b(gate)}{c}"
            return f"W_{gate} x + U_{gate} h{b(gate)}{c}"

        c_out = "a_c N(c) + b_c" if "layer_norm" in has else "c"
        lines = [
            f"i = {name[0]}({z('i')})",
            "f = 1 - i" if part.is_coupled else f"f = {name[0]}({z('f')})",
            f"g = {name[1]}({z('g')})",
            "c = f c + i g",
            f"o = {name[0]}({z('o')})",
            f"{'m' if 'w_proj' in has else 'h'} = o {name[2]}({c_out})",
        ]
        if "w_proj" in has:
            lines.append("h = P m")
        if "layer_norm" in has:
            lines.append("N(v) = (v - mean) / sqrt(variance + 1e-5), over all gates of a product")
    bounds = {"clip": "the input of each function", "cell_clip": "c", "proj_clip": "h"}
    lines += [f"{what} within +-{part.bounds[k]}" for k, what in bounds.items() if part.bounds[k]]
    kept = {"h": "h", "c": "c, after h is made,"}
    lines += [f"{kept[k]} keeps {p} of what it was" for k, p in part.zoneout.items() if p]
    return lines


def _over(n: int, body: Lines) -> Lines:
    """Return a loop over the vectors of n units."""
    first = f"const size_t u = vec_first(j, {n});"
    return [f"for (size_t j = 0; j < {n}; j += LANES) {{", *_indented([first, *body]), "}"]


def _real(value: float) -> str:
    return f"{value!r}_r"


def activated(activation: Activation, z: str, clip: float | None = None) -> str:
    """Return an activation of `z`, which is bounded first if there is a bound."""
    name, *parameters = activation
    z = z if clip is None else f"vec_within({z}, {_real(clip)})"
    given = [_real(value) for value in parameters[: len(ACTIVATIONS[name])]]
    return f"vec_{name}({', '.join((z, *given))})"


def _kept(part: Recurrence, letter: str) -> Lines:
    """Return zoneout's line, if there is one: what stays of the old state, on average."""
    p, new, old = part.zoneout[letter], f"new_{letter}", f"vec_load(&{letter}[u])"
    return [f"{new} = {_real(p)} * ({old} - {new}) + {new};"] if p else []


# --- cells ----------------------------------------------------------------------------------------


def _rnn(part: Recurrence) -> Lines:
    n, I, H = part.name, part.I, part.H
    return [
        f"real z_x[{H}], z[{H}], h_t[{H}];",
        f"sums(z_x, {n}_b[0], &{n}_W[0][0][0], x, {H}, {I});",
        f"sums(z, z_x, &{n}_U[0][0][0], h, {H}, {H});",
        *_over(
            H,
            [
                f"vec new_h = {activated(part.activations[0], 'vec_load(&z[u])', part.clip)};",
                *_kept(part, "h"),
                "vec_store(&h_t[u], new_h);",
            ],
        ),
        f"vec_copy(h, h_t, {H});",
    ]


def _gru(part: Recurrence) -> Lines:
    n, I, H = part.name, part.I, part.H
    gate, candidate = part.activations
    after = len(part.cell.bias) == 4
    r = f"const vec r = {activated(gate, 'vec_load(&z[1][u])', part.clip)};"
    z = f"const vec z_t = {activated(gate, 'vec_load(&z[2][u])', part.clip)};"
    z_n = "vec_load(&z_x[0][u])"
    z_n = f"r * vec_load(&z[3][u]) + {z_n}" if after else f"{z_n} + vec_load(&q[u])"
    new = [
        f"const vec n_t = {activated(candidate, z_n, part.clip)};",
        "vec new_h = z_t * (vec_load(&h[u]) - n_t) + n_t;",
        *_kept(part, "h"),
        "vec_store(&h_t[u], new_h);",
    ]
    lines = [
        f"real z_x[4][{H}], z[4][{H}], h_t[{H}];",
        "/* gates n, r, z, q: x adds to the first three, h to the last ones */",
        f"sums(z_x[0], {n}_b[0], &{n}_W[0][0][0], x, 3 * {H}, {I});",
    ]
    if after:
        return [
            *lines,
            f"vec_copy(z_x[3], {n}_b[3], {H});",
            f"sums(z[1], z_x[1], &{n}_U[0][0][0], h, 3 * {H}, {H});",
            *_over(H, [r, z, *new]),
            f"vec_copy(h, h_t, {H});",
        ]
    return [
        *lines,
        f"sums(z[1], z_x[1], &{n}_U[0][0][0], h, 2 * {H}, {H});",
        f"real rh[{H}], q[{H}];",
        *_over(H, [r, "vec_store(&rh[u], r * vec_load(&h[u]));"]),
        f"sums(q, zeros, &{n}_U_n[0][0][0], rh, {H}, {H});",
        *_over(H, [z, *new]),
        f"vec_copy(h, h_t, {H});",
    ]


def _lstm(part: Recurrence) -> Lines:
    n, H, G, has = part.name, part.H, part.cell.G, part.arrays.keys()
    norm, projected = "layer_norm" in has, "w_proj" in has
    h_t = "h_t" if part.zoneout["h"] else "h"  # only zoneout reads h once the sums are made
    m = "m" if projected else h_t
    first, second = ("zeros", "zeros") if norm else (f"{n}_b[0]", "z_x[0]")
    lines = [
        f"real z_x[{G}][{H}], z[{G}][{H}], c_t[{H}];",
        *([] if m == "h" else [f"real {m}[{H}];"]),
        f"sums(z_x[0], {first}, &{n}_W[0][0][0], x, {G} * {H}, {part.I});",
        f"sums(z[0], {second}, &{n}_U[0][0][0], h, {G} * {H}, {part.R});",
    ]
    if norm:
        lines += [f"normalize({z}[0], {G}, {H});" for z in ("z_x", "z")]
        lines += [
            f"real o_t[{H}], c_n[{H}];",
            *_over(
                H,
                [
                    *_lstm_cell(part),
                    "vec_store(&c_n[u], new_c);",
                    "vec_store(&o_t[u], o);",
                    *_stored_c(part),
                ],
            ),
            f"normalize(c_n, 1, {H});",
        ]
        c_out = f"vec_load(&c_n[u]) * vec_load(&{n}_norm[{2 * G}][u])"
        c_out += f" + vec_load(&{n}_norm[{2 * G + 1}][u])"
        lines += _over(H, _lstm_output(part, m, "vec_load(&o_t[u])", c_out))
    else:
        output = _lstm_output(part, m, "o", "new_c")
        lines += _over(H, [*_lstm_cell(part), *output, *_stored_c(part)])
    if projected:
        lines += _projection(part, h_t)
    copied = [f"vec_copy(h, h_t, {part.R});"] if h_t != "h" else []
    return [*lines, f"vec_copy(c, c_t, {H});", *copied]


def _lstm_cell(part: Recurrence) -> Lines:
    """Return the lines from sums to the new cell state, and o."""
    gate, candidate, _ = part.activations
    clip, G = part.clip, part.cell.G
    seeing = "io" if part.is_coupled else "ifo"  # the rows of peephole

    def z(letter: str, c: str = "") -> str:
        k = part.gates.index(letter)
        sum_ = f"vec_load(&z[{k}][u])"
        if "layer_norm" in part.arrays:
            a, e = (f"vec_load(&{part.name}_norm[{row}][u])" for row in (k, G + k))
            b = f"vec_load(&{part.name}_b[{k}][u])"
            sum_ = f"vec_load(&z_x[{k}][u]) * {a} + ({sum_} * {e} + {b})"
        if c and "peephole" in part.arrays:
            sum_ = f"vec_load(&{part.name}_peephole[{seeing.index(letter)}][u]) * {c} + {sum_}"
            if "layer_norm" in part.arrays:
                sum_ = sum_.replace(f"* {c} + ", f"* {c} + (") + ")"
        return sum_

    f = "1.0_r - i" if part.is_coupled else activated(gate, z("f", "old_c"), clip)
    bound = part.bounds["cell_clip"]
    return [
        "const vec old_c = vec_load(&c[u]);",
        f"const vec i = {activated(gate, z('i', 'old_c'), clip)};",
        f"const vec f = {f};",
        f"const vec g = {activated(candidate, z('g'), clip)};",
        "vec new_c = f * old_c + i * g;",
        *([] if bound is None else [f"new_c = vec_within(new_c, {_real(bound)});"]),
        f"const vec o = {activated(gate, z('o', 'new_c'), clip)};",
    ]


def _lstm_output(part: Recurrence, m: str, o: str, c_out: str) -> Lines:
    """Return the lines that make h, or m before the projection."""
    made = f"{o} * {activated(part.activations[2], c_out, part.clip)}"
    if m == "h_t" and part.zoneout["h"]:
        return [f"vec new_h = {made};", *_kept(part, "h"), "vec_store(&h_t[u], new_h);"]
    return [f"vec_store(&{m}[u], {made});"]


def _stored_c(part: Recurrence) -> Lines:
    return [*_kept(part, "c"), "vec_store(&c_t[u], new_c);"]


def _projection(part: Recurrence, h_t: str) -> Lines:
    n, H, R, bound = part.name, part.H, part.R, part.bounds["proj_clip"]
    return [
        f"real p[{R}];" if h_t == "h" else f"real p[{R}], h_t[{R}];",
        f"sums(p, zeros, &{n}_P[0][0], m, {R}, {H});",
        *_over(
            R,
            [
                "vec new_h = vec_load(&p[u]);",
                *([] if bound is None else [f"new_h = vec_within(new_h, {_real(bound)});"]),
                *_kept(part, "h"),
                f"vec_store(&{h_t}[u], new_h);",
            ],
        ),
    ]


# --- linear map -----------------------------------------------------------------------------------


def is_wide(part: Dense) -> bool:
    """Whether a linear map has enough outputs for vectors of them."""
    return part.layer.out_features >= LANES


def _dense(part: Dense) -> str:
    n, J, K = part.name, part.layer.out_features, part.layer.in_features
    f = part.activation
    if is_wide(part):
        lines = [f"sums(y, {n}_b, &{n}_W[0][0], x, {J}, {K});"]
        if f is not None:
            lines = [
                f"real z[{J}];",
                lines[0].replace("sums(y", "sums(z"),
                *_over(J, [f"vec_store(&y[u], {activated(f, 'vec_load(&z[u])')});"]),
            ]
    else:
        y = "z" if f is None else f"vec_lane({activated(f, 'vec_splat(z)')})"
        lines = [
            f"for (size_t j = 0; j < {J}; j++) {{",
            f"    real z = {n}_b[j];",
            f"    for (size_t k = 0; k < {K}; k++)",
            f"        z += x[k] * weight_at(&{n}_W[j][k]);",
            f"    y[j] = {y};",
            "}",
        ]
    what = "W x + b" if part.layer.bias else "W x"
    equation = f"y = {what}" if f is None else f"y = {f[0]}({what})"
    return "\n".join(
        [
            f"/* Linear: x ({K},) in, y ({J},) out.   {equation} */",
            f"static void {n}_step(real *y, const real *x)",
            "{",
            *_indented(lines),
            "}",
            "",
        ]
    )
