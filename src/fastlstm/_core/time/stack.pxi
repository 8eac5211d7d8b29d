# Layers above each other, in one direction or both: all that a call of a layer object does with
# arguments that have been checked. It is compiled because one step of a small layer takes less than
# ten lines of Python.


cdef enum:
    KINDS = 6                    # of parameters, as in Gradients

cdef tuple KIND_NAMES = ("w_ih", "w_hh", "b", "peephole", "w_proj", "layer_norm")


cdef struct Part:                # the parameters of one layer and direction
    const real *data
    ptrdiff_t n
    ptrdiff_t[KINDS] offsets    # of each in all parameters, or -1


cdef SequenceView turned(SequenceView a, ptrdiff_t T) noexcept:
    """The same from its last step to its first."""
    a.data = offset(a.data, (T - 1) * a.stride_t)
    a.stride_t = -a.stride_t
    return a


cdef inline SequenceView columns_of(SequenceView a, ptrdiff_t first, ptrdiff_t F) noexcept:
    a.data = offset(a.data, first)
    a.F = F
    return a


cdef object new_sequence(ptrdiff_t T, ptrdiff_t B, ptrdiff_t F, bint zero=False):
    """An array (T, B, F)."""
    cdef cnp.npy_intp[3] shape = [T, B, F]
    if zero:
        return cnp.PyArray_ZEROS(3, shape, TYPE_NUMBER, False)
    return cnp.PyArray_EMPTY(3, shape, TYPE_NUMBER, False)


cdef int check_states(str name, object states, ptrdiff_t N, ptrdiff_t B, ptrdiff_t F) except -1:
    """Raise ValueError unless they are (layers * directions, B, F), or None."""
    cdef const cnp.npy_intp *shape
    if states is None:
        return 0
    check_layout(name, states, 3, False)
    shape = cnp.PyArray_DIMS(states)
    if shape[0] != N or shape[1] != B or shape[2] != F:
        raise ValueError(f"{name}: expected {(N, B, F)}, got {states.shape}")
    return 0


cdef StateView state_at(object states, ptrdiff_t i) noexcept:
    """State i of all, or of None."""
    if states is None:
        return StateView(NULL, 0, 0, 0)
    return StateView(
        <real *>cnp.PyArray_DATA(states) + i * stride_of(states, 0),
        stride_of(states, 1), stride_of(states, 2), cnp.PyArray_DIM(states, 2))


cdef States states_at(tuple states, ptrdiff_t i) noexcept:
    return States(state_at(states[0], i), state_at(states[1], i))


cdef tuple arrays_at(tuple states, ptrdiff_t i):
    """The same as arrays."""
    h, c = states
    return None if h is None else h[i], None if c is None else c[i]


def views(flat, list layout):
    """Return the parts of a flat array by name: `layout` has their names, offsets and shapes."""
    cdef dict named = {}
    cdef cnp.npy_intp[2] shape
    cdef ptrdiff_t start, size, n = cnp.PyArray_SIZE(flat)
    cdef int dimensions, i
    cdef str name
    cdef tuple of_part
    check_layout("flat", flat, 1, False)
    check_contiguous("flat", flat)
    for name, start, of_part in layout:
        dimensions = len(of_part)
        if not 1 <= dimensions <= 2:
            raise ValueError(f"layout: expected one or two dimensions, got {of_part}")
        size = 1
        for i in range(dimensions):
            shape[i] = of_part[i]
            size *= shape[i]
        if start < 0 or size < 0 or start + size > n:
            raise ValueError(f"layout: expected parts of {n} numbers")
        part = cnp.PyArray_SimpleNewFromData(
            dimensions, shape, TYPE_NUMBER, <real *>cnp.PyArray_DATA(flat) + start)
        cnp.set_array_base(part, flat)
        named[name] = part
    return named


cdef inline real *at(real *array, ptrdiff_t distance) noexcept nogil:
    """array + distance; NULL if that is -1."""
    return NULL if distance < 0 else array + distance


cdef int run_pending(list calls, int directions) except -1:
    """Run the calls that have come together, and begin anew."""
    if calls:
        run_forward(calls, directions == 1)
        calls.clear()
    return 0


cdef int run_pending_backward(list calls, int directions) except -1:
    if calls:
        run_backward(calls, directions == 1)
        calls.clear()
    return 0


cdef class Stack:
    """What does not change between the calls of layers, and the calls.

    Packed weights are kept together with a fingerprint of the parameters that they were made of,
    and never modified, only replaced: any number of threads may call. They are made of a copy, as
    is the fingerprint: were they made of what another thread writes meanwhile, they would be taken
    for those of the fingerprint whenever the parameters have it again.
    """

    cdef object flat
    cdef list parameters        # per layer and direction, by argument
    cdef object pack
    cdef list packed            # alike: fingerprint and weights, or None
    cdef Buffer buffer
    cdef Part *parts
    cdef int layers, directions
    cdef bint reverse, has_c
    cdef ptrdiff_t H, R

    def __init__(
        self, flat, list parameters not None, pack, *, int directions, bint reverse, bint has_c,
        ptrdiff_t hidden_size, ptrdiff_t output_size,
    ):
        """Of each layer and direction `parameters` has arrays by argument, parts of `flat` that
        follow each other. ``pack(**arrays)`` makes weights; `reverse` is of a single direction.
        """
        cdef ptrdiff_t i, k, end = 0, n = len(parameters)
        cdef Part *part
        check_layout("flat", flat, 1, False)
        self.flat = flat
        self.parameters = parameters
        self.pack = pack
        self.packed = [None] * n
        self.buffer = Buffer(n * sizeof(Part))
        self.parts = <Part *>self.buffer.block.memory
        self.layers = n // directions
        self.directions = directions
        self.reverse = reverse
        self.has_c = has_c
        self.H = hidden_size
        self.R = output_size
        for i in range(n):
            part = &self.parts[i]
            part.data = <real *>cnp.PyArray_DATA(flat) + end
            part.n = 0
            for k in range(KINDS):
                array = parameters[i].get(KIND_NAMES[k])
                part.offsets[k] = -1
                if array is not None:
                    part.n += array.size
                    part.offsets[k] = <real *>cnp.PyArray_DATA(array) - (
                        <real *>cnp.PyArray_DATA(flat))
            end += part.n
        if end > cnp.PyArray_SIZE(flat):
            raise ValueError("parameters: expected parts of flat")

    cdef inline bint starts_at_end(self, int direction) noexcept:
        return self.reverse or direction == 1

    cdef Weights weights(self, ptrdiff_t i, bint training):
        """Packed weights that agree with the parameters as they are now."""
        cdef const Part *part = &self.parts[i]
        cdef bytes found = fingerprint_of(part.data, part.n)
        cdef tuple packed = self.packed[i]
        cdef Weights weights
        if packed is not None and packed[0] == found:
            weights = packed[1]
            if not training or weights.backward_buffer is not None:
                return weights
        copy = empty(part.n, DTYPE)
        memcpy(cnp.PyArray_DATA(copy), part.data, part.n * sizeof(real))
        found = fingerprint_of(<real *>cnp.PyArray_DATA(copy), part.n)
        arrays = self.views_of(i, copy)
        if packed is None or packed[0] != found:
            packed = found, self.pack(**arrays)
            self.packed[i] = packed
        weights = packed[1]
        if training and weights.backward_buffer is None:
            weights.prepare_backward(arrays["w_ih"], arrays["w_hh"], arrays.get("w_proj"))
        return weights

    cdef dict views_of(self, ptrdiff_t i, copy):
        """The parameters of a layer and direction by argument, as parts of a copy of them."""
        cdef const Part *part = &self.parts[i]
        cdef ptrdiff_t begin = part.data - <real *>cnp.PyArray_DATA(self.flat), k, at
        cdef dict arrays = {}
        for k in range(KINDS):
            if part.offsets[k] >= 0:
                array = self.parameters[i][KIND_NAMES[k]]
                at = part.offsets[k] - begin
                arrays[KIND_NAMES[k]] = copy[at:at + array.size].reshape(array.shape)
        return arrays

    def weights_of(self, ptrdiff_t layer):
        """Return the packed weights of a layer's first direction."""
        if not 0 <= layer < self.layers:
            raise ValueError(f"layer: expected one of {self.layers}, got {layer}")
        return self.weights(layer * self.directions, False)

    cdef Schedule schedule(self, object x, object lengths, object restarts, int direction):
        """The steps of x (T, B, I) in one direction."""
        cdef bint reverse = self.starts_at_end(direction)
        flags = None if restarts is None else restarts[direction]
        if flags is not None:
            flags = flags.view(np.uint8)
            if reverse and lengths is None:
                flags = flags[::-1]
        return new_schedule(
            cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1), lengths, reverse, flags)

    cdef tuple checked(self, str h_name, str c_name, tuple states, ptrdiff_t B):
        """h and c of all layers and directions, as they can be read."""
        cdef ptrdiff_t N = self.layers * self.directions
        if states[0] is None and states[1] is None:
            return states
        h, c = readable(states[0]), readable(states[1])
        check_states(h_name, h, N, B, self.R)
        check_states(c_name, c, N, B, self.H if self.has_c else 0)
        return h, c

    cdef tuple new_states(self, ptrdiff_t B):
        cdef ptrdiff_t N = self.layers * self.directions
        return (new_sequence(N, B, self.R),
                new_sequence(N, B, self.H) if self.has_c else None)

    def forward(
        self, x, tuple initial, bint batch_first, bint taped, lengths, restarts,
        input_masks, masks, new_checkpoints,
    ):
        """Run all layers over x (T, B, I).

        `initial` is the pair h_0, c_0 of arrays (layers * directions, B, .), or None; `restarts`
        has for each direction what `restarts_of` returns; `input_masks`, per layer, and `masks`,
        per layer and direction, have None where there are none; `new_checkpoints`, if it is given,
        makes what takes the place of a tape.

        Returns y (T, B, directions * R), or (B, T, .) if batch_first; h_n and c_n, or h_n alone;
        per layer the tapes of its directions, None unless `taped`.
        """
        cdef ptrdiff_t T, B, D = self.directions, layer, direction
        cdef bint ragged = lengths is not None
        cdef list calls = [], tapes = [], schedules = [], of_layer
        cdef tuple final
        x = readable(x)
        check_layout("x", x, 3, False)
        T, B = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
        initial, final = self.checked("h_0", "c_0", initial, B), self.new_states(B)
        for direction in range(D):
            schedules.append(self.schedule(x, lengths, restarts, direction))
        for layer in range(self.layers):
            if input_masks is not None and input_masks[layer] is not None:
                run_pending(calls, D)
                x = readable(x * input_masks[layer])
            if batch_first and layer == self.layers - 1:
                result = new_sequence(B, T, D * self.R, ragged)
                y = result.transpose(1, 0, 2)
            else:
                result = y = new_sequence(T, B, D * self.R, ragged)
            of_layer = []
            for direction in range(D):
                mask = None if masks is None else masks[layer * D + direction]
                if new_checkpoints is not None:
                    of_layer.append(self.forward_by_segments(
                        new_checkpoints, layer, direction, x, y, initial, final, lengths, restarts,
                        mask))
                else:
                    of_layer.append(self.forward_call(
                        calls, layer, direction, schedules[direction], x, y, initial, final, mask,
                        taped))
            tapes.append(of_layer)
            if D == 2:
                run_pending(calls, D)
            x = y
        run_pending(calls, D)
        return result, final if self.has_c else final[0], tapes

    cdef Tape forward_call(
        self, list calls, ptrdiff_t layer, int direction, Schedule schedule, object x, object y,
        tuple initial, tuple final, object masks, bint taped,
    ):
        """Add a call of one layer and direction; return its tape, if it is to have one."""
        cdef ptrdiff_t T = schedule.T, B = schedule.steps.B, R = self.R
        cdef ptrdiff_t i = layer * self.directions + direction
        cdef Weights weights = self.weights(i, taped)
        cdef SequenceView x_view = sequence_view("x", x, T, B, weights.packed.size.I)
        cdef SequenceView y_view = sequence_view("y", y, T, B, self.directions * R, True)
        cdef States start = states_at(initial, i), end = states_at(final, i)
        cdef bint backwards = self.starts_at_end(direction) and schedule.steps.order == NULL
        cdef ForwardCall call = ForwardCall.__new__(ForwardCall)
        y_view = columns_of(y_view, direction * R, R)
        if backwards:
            x_view, y_view = turned(x_view, T), turned(y_view, T)
        call.set(
            weights, schedule, &x_view, &y_view, &start, &end,
            None if masks is None else masks.readable(backwards), taped, x, (y, initial, final))
        calls.append(call)
        return call.tape

    cdef object forward_by_segments(
        self, object new_checkpoints, ptrdiff_t layer, int direction, object x, object y,
        tuple initial, tuple final, object lengths, object restarts, object masks,
    ):
        """Run one layer and direction; return what was kept between its segments."""
        cdef ptrdiff_t i = layer * self.directions + direction
        checkpoints = new_checkpoints(
            weights=self.weights(i, True), x=x, lengths=lengths,
            restarts=None if restarts is None else restarts[direction],
            reverse=self.starts_at_end(direction), masks=masks)
        checkpoints.forward(
            y[:, :, direction * self.R : (direction + 1) * self.R],
            initial=arrays_at(initial, i), final=arrays_at(final, i))
        return checkpoints

    def backward(
        self, list tapes not None, dy, tuple dfinal, input_masks, bint ragged,
        bint input_gradient,
    ):
        """Backpropagate dy (T, B, directions * R) and `dfinal`, the pair dh_n, dc_n, or None each.

        Returns dx (T, B, I), None unless `input_gradient`; dh_0 and dc_0, or dh_0 alone; and the
        gradient of all parameters, in the order of `flat`.
        """
        cdef ptrdiff_t T, B, D = self.directions, layer, direction
        cdef list calls = [], parts
        cdef tuple dinitial
        T, B, _ = tapes[0][0].x.shape
        dfinal, dinitial = self.checked("dh_n", "dc_n", dfinal, B), self.new_states(B)
        flat = cnp.PyArray_ZEROS(1, cnp.PyArray_DIMS(self.flat), TYPE_NUMBER, False)
        for layer in range(self.layers - 1, -1, -1):
            dy, dx, parts = readable(dy), None, []
            for direction in range(D):
                tape = tapes[layer][direction]
                if layer or input_gradient:
                    dx = new_sequence(T, B, tape.x.shape[2], ragged)
                parts.append(dx)
                if isinstance(tape, Tape):
                    self.backward_call(
                        calls, layer, direction, tape, dy, dx, dfinal, dinitial, flat)
                else:
                    self.backward_by_segments(
                        layer, direction, tape, dy, dx, dfinal, dinitial, flat)
            mask = None if input_masks is None else input_masks[layer]
            if D == 2 or mask is not None:
                run_pending_backward(calls, D)
            if dx is None:
                break
            if D == 2:
                dx = parts[0]
                dx += parts[1]
            dy = dx = dx if mask is None else dx * mask
        run_pending_backward(calls, D)
        return dx, dinitial if self.has_c else dinitial[0], flat

    cdef int backward_call(
        self, list calls, ptrdiff_t layer, int direction, Tape tape, object dy, object dx,
        tuple dfinal, tuple dinitial, object flat,
    ) except -1:
        """Add a call of one layer and direction."""
        cdef ptrdiff_t T = tape.schedule.T, B = tape.schedule.steps.B, R = self.R
        cdef ptrdiff_t i = layer * self.directions + direction
        cdef SequenceView dy_view = sequence_view("dy", dy, T, B, self.directions * R)
        cdef SequenceView dx_view = sequence_view("dx", dx, T, B, tape.weights.packed.size.I)
        cdef States end = states_at(dfinal, i), start = states_at(dinitial, i)
        cdef BackwardCall call = BackwardCall.__new__(BackwardCall)
        cdef real *to = <real *>cnp.PyArray_DATA(flat)
        cdef Part *part = &self.parts[i]
        cdef Gradients gradients = Gradients(
            at(to, part.offsets[0]), at(to, part.offsets[1]), at(to, part.offsets[2]),
            at(to, part.offsets[3]), at(to, part.offsets[4]), at(to, part.offsets[5]))
        dy_view = columns_of(dy_view, direction * R, R)
        if self.starts_at_end(direction) and tape.schedule.steps.order == NULL:
            dy_view, dx_view = turned(dy_view, T), turned(dx_view, T)
        call.set(tape, &dy_view, &end, &dx_view, &start, &gradients,
                 (dy, dx, dfinal, dinitial, flat))
        calls.append(call)
        return 0

    cdef int backward_by_segments(
        self, ptrdiff_t layer, int direction, object checkpoints, object dy, object dx,
        tuple dfinal, tuple dinitial, object flat,
    ) except -1:
        cdef ptrdiff_t i = layer * self.directions + direction
        cdef dict arrays = self.parameters[i]
        checkpoints.backward(
            dy=None if dy is None else dy[:, :, direction * self.R : (direction + 1) * self.R],
            dfinal=arrays_at(dfinal, i), dx=dx, dinitial=arrays_at(dinitial, i),
            gradients=views(flat, [
                (name, self.parts[i].offsets[KIND_NAMES.index(name)], arrays[name].shape)
                for name in arrays]))
        return 0
