"""Streams: layers that take one time step after the other.

Decision: a step is compiled (``_core/step/stream.pxi``), and knows packed weights only. A stream
adds what belongs to its layer: the weights as they are when it starts, and how arrays are checked.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastlstm._args.arrays import check_array, check_resets, readable
from fastlstm._core.calls import CORES


class _OfLayer:
    """What a stream knows of its layer; the rest is the compiled class's."""

    restart: Any
    copy_state: Any
    set_state: Any
    zero_rows: Any

    def __init__(self, layer: Any, batch_size: int):
        self._layer = layer
        self._batch_size = batch_size
        self.reset()

    def reset(self) -> None:
        """Set the state to zero and take the weights as they are now."""
        layers = range(self._layer.num_layers)
        weights = [self._layer._stack.weights_of(layer) for layer in layers]
        self.restart(weights, self._layer._expected_zoneout(), self._batch_size)

    def reset_rows(self, resets: ArrayLike) -> None:
        """Set the state to zero in the rows where `resets`, a (B,) array of bool, is true.

        An episode begins there: before a step this does what ``resets[t]`` does in a call, to the
        bit. The weights stay as they are.

        Raises
        ------
        ValueError, TypeError
            If `resets` does not fit.

        Examples
        --------
        >>> import numpy as np
        >>> import fastlstm
        >>> stream = fastlstm.GRU(3, 8, rng=0).stream(batch_size=2)
        >>> first = stream.step(np.ones((2, 3), np.float32))
        >>> stream.reset_rows([False, True])
        >>> second = stream.step(np.ones((2, 3), np.float32))
        >>> (second == first).all(axis=1)
        array([False,  True])
        """
        self.zero_rows(check_resets(resets, (self._batch_size,)).view(np.uint8))

    @property
    def state(self) -> Any:
        """A copy of the state, in the shape that the layer's call takes and gives; may be set."""
        h, c = self.copy_state()
        return h if c is None else (h, c)

    @state.setter
    def state(self, value: Any) -> None:
        h, c = self._layer._check_state("state", value, self._batch_size)
        L = self._layer.num_layers
        self.set_state(*([None if s is None else readable(s[k]) for k in range(L)] for s in (h, c)))

    def readable(self, x_t: Any) -> NDArray[Any]:
        """Return `x_t` as the compiled step can read it."""
        shape = (self._batch_size, self._layer.input_size)
        return np.require(
            check_array("x_t", x_t, shape, self._layer.dtype), requirements=["C", "A"]
        )

    def writable(self, out: Any) -> None:
        """Raise what is wrong with `out`."""
        check_array("out", out, (self._batch_size, self._layer.output_size), self._layer.dtype)

    def __repr__(self) -> str:
        return f"<Stream of {self._layer!r}, batch_size={self._batch_size}>"


_DOC = """Runs recurrent layers step by step, with a state of its own.

Made by the method ``stream`` of a layer. The weights are those of that moment, or of the last
``reset``. One thread at a time may use a stream; any number of streams may share a layer.
"""

STREAMS: dict[np.dtype, Any] = {
    dtype: type("Stream", (_OfLayer, core.Stream), {"__doc__": _DOC})
    for dtype, core in CORES.items()
}
