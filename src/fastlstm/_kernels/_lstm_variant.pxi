# The LSTM with any of: peepholes, coupled gates, layer norm, clipping, zoneout of c, projection,
# other activations. One row after the other, since a norm wants all hidden units of a row; what is
# multiplied comes from the same tiles as in the plain LSTM.


cdef real normalize(real *x, ptrdiff_t first, ptrdiff_t vectors, ptrdiff_t H) noexcept nogil:
    """x := N(x) over the vectors first.. of each group of `vectors`, H units of each; the factor.

    With 4 vectors a group is a panel of gates; with 1, x is (H,).
    """
    cdef ptrdiff_t p, v, P = blocks(H, LANES), count = (vectors - first) * H
    cdef vec total = splat(0), difference, mean
    cdef real scale
    cdef int n
    for p in range(P):
        n = <int>(H - p * LANES)
        for v in range(first, vectors):
            total = total + get(x + (p * vectors + v) * LANES, n)
    mean = splat(<real>(vec_sum(total) / <double>count))
    total = splat(0)
    for p in range(P):
        n = <int>(H - p * LANES)
        for v in range(first, vectors):
            difference = get(x + (p * vectors + v) * LANES, n) - mean
            store(x + (p * vectors + v) * LANES, splat(0))
            put(x + (p * vectors + v) * LANES, difference, n)
            difference = load(x + (p * vectors + v) * LANES)
            total = fma(difference, difference, total)
    scale = <real>(1 / sqrt(vec_sum(total) / <double>count + 1e-5))
    for p in range(P):
        for v in range(first, vectors):
            store(x + (p * vectors + v) * LANES,
                  load(x + (p * vectors + v) * LANES) * splat(scale))
    return scale


cdef void lstm_variant_row_forward(const forward_step *s, ptrdiff_t row) noexcept nogil:
    """The cells of a row whose gates hold z, or with layer norm whose extra holds N(z)'s parts."""
    cdef const cell_options *options = s.options
    cdef ptrdiff_t Hp = blocks(s.H, LANES) * LANES, Z = 4 * Hp, p, unit, j
    cdef real *gates = s.gates + row * s.gates_stride
    cdef real *extra = s.extra + row * s.extra_stride
    cdef const real *c_prev = s.c_prev + row * s.c_stride
    cdef const real *peephole = options.peephole
    cdef vec f, i, g, o, c, old, keep
    cdef int first = 1 if options.coupled else 0
    if options.norm != NULL:
        extra[s.parts.scales] = normalize(extra + s.parts.norm_x, first, 4, s.H)
        extra[s.parts.scales + 1] = normalize(extra + s.parts.norm_h, first, 4, s.H)
        for j in range(4 * blocks(s.H, LANES)):
            unit = j * LANES
            store(gates + unit, fma(
                load(extra + s.parts.norm_x + unit), load(options.norm + unit),
                fma(load(extra + s.parts.norm_h + unit), load(options.norm + Z + unit),
                    load(s.init + unit))))
    for p in range(blocks(s.H, LANES)):
        unit = p * LANES
        old = load(c_prev + unit)
        f = load(gates + 4 * unit)
        i = load(gates + 4 * unit + LANES)
        if peephole != NULL:
            i = fma(load(peephole + unit), old, i)
            f = fma(load(peephole + Hp + unit), old, f)
        i = activate(&options.gate, bounded(options, i))
        f = splat(1) - i if options.coupled else activate(&options.gate, bounded(options, f))
        g = activate(&options.candidate, bounded(options, load(gates + 4 * unit + 2 * LANES)))
        o = load(gates + 4 * unit + 3 * LANES)
        c = fma(f, old, i * g)
        if options.cell_clip != INFINITY:
            c = most(least(c, splat(options.cell_clip)), splat(-options.cell_clip))
        if peephole != NULL:
            o = fma(load(peephole + 2 * Hp + unit), c, o)
        store(gates + 4 * unit, f)
        store(gates + 4 * unit + LANES, i)
        store(gates + 4 * unit + 2 * LANES, g)
        store(gates + 4 * unit + 3 * LANES, activate(&options.gate, bounded(options, o)))
        store(extra + s.parts.c + unit, c)
        if s.zoneout_c != NULL:
            keep = load(s.zoneout_c + row * s.zoneout_c_stride + unit)
            store(s.c + row * s.c_stride + unit, fma(keep, old - c, c))
        else:
            store(s.c + row * s.c_stride + unit, c)
    lstm_variant_row_output(s, row)


cdef void lstm_variant_row_output(const forward_step *s, ptrdiff_t row) noexcept nogil:
    """h, or m where it is still to be projected, from c~ and o."""
    cdef const cell_options *options = s.options
    cdef ptrdiff_t Hp = blocks(s.H, LANES) * LANES, Z = 4 * Hp, p, unit
    cdef real *gates = s.gates + row * s.gates_stride
    cdef real *extra = s.extra + row * s.extra_stride
    cdef real *m = s.h + row * s.h_stride
    cdef real *u = extra + s.parts.c
    cdef vec o, c
    cdef int n
    if options.norm != NULL:
        u = extra + s.parts.norm_c
        memcpy(u, extra + s.parts.c, Hp * sizeof(real))
        extra[s.parts.scales + 2] = normalize(u, 0, 1, s.H)
    if options.w_proj != NULL:
        m = extra + s.parts.m
    for p in range(blocks(s.H, LANES)):
        unit = p * LANES
        n = LANES if options.w_proj != NULL else <int>(s.H - unit)
        c = load(u + unit)
        if options.norm != NULL:
            c = fma(c, load(options.norm + 2 * Z + unit), load(options.norm + 2 * Z + Hp + unit))
        o = load(gates + 4 * unit + 3 * LANES)
        put(m + unit, o * activate(&options.output, bounded(options, c)), n)


cdef void lstm_variant_output_backward(
    const backward_step *s, ptrdiff_t row, const real *dm, const real *dy, const real *normal,
    real *dz_o, real *du,
) noexcept nogil:
    """dz_o, and du: dL/d(input of the output activation), from dm (Hp,) + dy (H,): dL/dm."""
    cdef const cell_options *options = s.options
    cdef ptrdiff_t H = s.H, Hp = blocks(H, LANES) * LANES, Z = 4 * Hp, p, unit
    cdef const real *gates = s.gates + row * s.gates_stride
    cdef const real *extra = s.extra + row * s.extra_stride
    cdef vec o, out, d_out
    cdef int n
    for p in range(blocks(H, LANES)):
        unit = p * LANES
        n = <int>(H - unit)
        o = load(gates + 4 * unit + 3 * LANES)
        if options.norm != NULL:
            out = fma(load(normal + unit), load(options.norm + 2 * Z + unit),
                      load(options.norm + 2 * Z + Hp + unit))
        else:
            out = load(extra + s.parts.c + unit)
        out = activate(&options.output, out)
        d_out = load(dm + unit) + get(dy + unit, n)
        put(dz_o + unit, d_out * out * slope(&options.gate, o), n)
        put(du + unit, d_out * o * slope(&options.output, out), n)


cdef void lstm_variant_norm_means(
    const real *du, const real *normal, const real *gain, ptrdiff_t H, real *means,
) noexcept nogil:
    """Means over H of du * gain, and of it times N(c~)."""
    cdef vec sum_1 = splat(0), sum_2 = splat(0), d_u
    cdef ptrdiff_t p, unit
    for p in range(blocks(H, LANES)):
        unit = p * LANES
        d_u = get(du + unit, <int>(H - unit)) * load(gain + unit)
        sum_1 = sum_1 + d_u
        sum_2 = fma(d_u, load(normal + unit), sum_2)
    means[0] = <real>(vec_sum(sum_1) / <double>H)
    means[1] = <real>(vec_sum(sum_2) / <double>H)


cdef void lstm_variant_row_backward(
    const backward_step *s, ptrdiff_t row, const real *dm, const real *dy,
) noexcept nogil:
    """dm (Hp,), dy (H,): their sum is dL/dm, m being the output before any projection."""
    cdef const cell_options *options = s.options
    cdef ptrdiff_t H = s.H, Z = 4 * blocks(H, LANES) * LANES
    cdef const real *extra = s.extra + row * s.extra_stride
    cdef const real *normal = extra + s.parts.norm_c
    cdef real *dz = s.dz + row * s.dz_stride
    cdef real *db = dz + s.gradients.b
    cdef real *du = dz + s.gradients.u
    cdef real means[2]
    lstm_variant_output_backward(
        s, row, dm, dy, normal, db + (2 if options.coupled else 3) * H, du)
    means[:] = [0, 0]
    if options.norm != NULL:
        lstm_variant_norm_means(du, normal, options.norm + 2 * Z, H, means)
    lstm_variant_cell_backward(s, row, normal, means, du, db)
    if options.norm != NULL:
        normalize_backward(
            dz, db, extra + s.parts.norm_x, options.norm, extra[s.parts.scales], H,
            options.coupled)
        normalize_backward(
            dz + s.gradients.h, db, extra + s.parts.norm_h, options.norm + Z,
            extra[s.parts.scales + 1], H, options.coupled)


cdef void lstm_variant_cell_backward(
    const backward_step *s, ptrdiff_t row, const real *normal, const real *means,
    const real *du, real *db,
) noexcept nogil:
    """dz of i, f and g, and dc of the step before, from du; dz of o is there."""
    cdef const cell_options *options = s.options
    cdef ptrdiff_t H = s.H, Hp = blocks(H, LANES) * LANES, Z = 4 * Hp, p, unit
    cdef const real *gates = s.gates + row * s.gates_stride
    cdef const real *extra = s.extra + row * s.extra_stride
    cdef const real *c_prev = s.c_prev + row * s.c_stride
    cdef const real *peephole = options.peephole
    cdef real *dc = s.dc + row * s.dc_stride
    cdef ptrdiff_t at_f = H, at_g = (1 if options.coupled else 2) * H, at_o = at_g + H
    cdef vec f, i, g, old, d_c, d_i, d_f, keep, future
    cdef int n
    for p in range(blocks(H, LANES)):
        unit = p * LANES
        n = <int>(H - unit)
        f = load(gates + 4 * unit)
        i = load(gates + 4 * unit + LANES)
        g = load(gates + 4 * unit + 2 * LANES)
        old = load(c_prev + unit)
        d_c = get(du + unit, n)
        if options.norm != NULL:
            d_c = splat(extra[s.parts.scales + 2]) * (
                d_c * load(options.norm + 2 * Z + unit) - splat(means[0])
                - load(normal + unit) * splat(means[1]))
        future = load(dc + unit)
        if s.zoneout_c != NULL:
            keep = load(s.zoneout_c + row * s.zoneout_c_stride + unit)
            d_c = d_c + (splat(1) - keep) * future
            future = keep * future
        else:
            d_c = d_c + future
            future = splat(0)
        if peephole != NULL:
            d_c = fma(load(peephole + 2 * Hp + unit), get(db + at_o + unit, n), d_c)
        if options.cell_clip != INFINITY:
            d_c = d_c * within(load(extra + s.parts.c + unit), options.cell_clip)
        d_i = d_c * g
        d_f = d_c * old
        if options.coupled:
            d_i = d_i - d_f
        d_i = d_i * slope(&options.gate, i)
        put(db + unit, d_i, n)
        put(db + at_g + unit, d_c * i * slope(&options.candidate, g), n)
        future = fma(d_c, f, future)
        if peephole != NULL:
            future = fma(load(peephole + unit), d_i, future)
        if not options.coupled:
            d_f = d_f * slope(&options.gate, f)
            put(db + at_f + unit, d_f, n)
            if peephole != NULL:
                future = fma(load(peephole + Hp + unit), d_f, future)
        store(dc + unit, future)


cdef void normalize_backward(
    real *dx, const real *dz, const real *normal, const real *gain, real scale, ptrdiff_t H,
    bint coupled,
) noexcept nogil:
    """dx (gates * H,) of z = N(x) * gain, normal being N(x), and gain, in panels of gates."""
    cdef ptrdiff_t p, k, block, place
    cdef vec sum_1 = splat(0), sum_2 = splat(0), d
    cdef real mean_1, mean_2
    cdef double count = (3 if coupled else 4) * <double>H
    cdef int n
    for k in range(3 if coupled else 4):
        block = block_of_gate(k, coupled)
        for p in range(blocks(H, LANES)):
            place = (4 * p + block) * LANES
            d = get(dz + k * H + p * LANES, <int>(H - p * LANES)) * load(gain + place)
            sum_1 = sum_1 + d
            sum_2 = fma(d, load(normal + place), sum_2)
    mean_1 = <real>(vec_sum(sum_1) / count)
    mean_2 = <real>(vec_sum(sum_2) / count)
    for k in range(3 if coupled else 4):
        block = block_of_gate(k, coupled)
        for p in range(blocks(H, LANES)):
            n = <int>(H - p * LANES)
            place = (4 * p + block) * LANES
            d = get(dz + k * H + p * LANES, n) * load(gain + place)
            d = splat(scale) * (d - splat(mean_1) - load(normal + place) * splat(mean_2))
            put(dx + k * H + p * LANES, d, n)


cdef void lstm_option_gradients(
    real *dpeephole, real *dnorm, const real *dz, const real *extra, const real *c_prev,
    const extra_parts *parts, const gradient_parts *gradients, const cell_options *options,
    ptrdiff_t H,
) noexcept nogil:
    cdef ptrdiff_t gates = 3 if options.coupled else 4, k, p, unit, place, n
    cdef const real *db = dz + gradients.b
    cdef const real *du = dz + gradients.u
    if options.peephole != NULL:
        for k in range(gates - 2):  # i, and f if there is one
            accumulate(dpeephole + k * H, db + k * H, c_prev, H)
        accumulate(dpeephole + (gates - 2) * H, db + (gates - 1) * H, extra + parts.c, H)
    if options.norm == NULL:
        return
    for k in range(gates):
        for p in range(blocks(H, LANES)):
            unit = p * LANES
            n = min(<ptrdiff_t>LANES, H - unit)
            place = (4 * p + block_of_gate(k, options.coupled)) * LANES
            accumulate(dnorm + k * H + unit, db + k * H + unit, extra + parts.norm_x + place, n)
            accumulate(dnorm + (gates + k) * H + unit, db + k * H + unit,
                       extra + parts.norm_h + place, n)
    accumulate(dnorm + 2 * gates * H, du, extra + parts.norm_c, H)
    accumulate(dnorm + (2 * gates + 1) * H, du, NULL, H)


cdef inline ptrdiff_t block_of_gate(ptrdiff_t k, bint coupled) noexcept nogil:
    """Where gate k of i, f, g, o (coupled: i, g, o) stands in a panel f, i, g, o."""
    if coupled:
        return k + 1
    return 1 - k if k < 2 else k
