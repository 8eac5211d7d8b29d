"""A batch of rollouts in one call with `resets`, against loops that stop where episodes end.

    python benchmarks/episodes.py --steps 128 --batch 8 --features 128 --hidden 128 --episode 40

A training step (forward and backward) of an LSTM over (T, B) steps of which each begins an episode
with the probability 1 / episode. Ratios are of medians of runs that alternate.
"""

import argparse
import time

import numpy as np

import fastlstm


def in_one_call(lstm, x, resets, dy):
    """Return y and the gradient of the parameters."""
    y, _, tape = lstm.forward(x, resets=resets)
    return y, lstm.backward(tape, dy).flat


def without(lstm, x, resets, dy):
    """Return the same as if there were no episodes: what a call costs without `resets`."""
    y, _, tape = lstm.forward(x)
    return y, lstm.backward(tape, dy).flat


def cut(lstm, x, resets, dy):
    """Return the same by calls that end where an episode of any row does, carrying the state."""
    starts = sorted({0, *np.flatnonzero(resets.any(axis=1))})
    parts, state, y = [], None, np.empty_like(dy)
    for start, stop in zip(starts, [*starts[1:], len(x)], strict=True):
        if state is not None:
            state = tuple(np.where(resets[start][:, None], s.dtype.type(0), s) for s in state)
        y[start:stop], state, tape = lstm.forward(x[start:stop], state)
        parts.append((start, stop, tape))
    flat, dstate = np.zeros_like(lstm.flat), None
    for start, stop, tape in reversed(parts):
        gradients = lstm.backward(tape, dy[start:stop], dstate)
        flat += gradients.flat
        keep = ~resets[start][:, None]
        dstate = tuple(s * keep for s in gradients.state)
    return y, flat


def torch_loop(lstm, resets, x, dy):
    """Return a function that does it step by step in PyTorch, as is usual in PPO with an LSTM."""
    import torch

    from fastlstm.exchange import to_torch

    theirs = torch.nn.LSTM(lstm.input_size, lstm.hidden_size)
    weights = {name: torch.from_numpy(w) for name, w in to_torch(lstm).items()}
    theirs.load_state_dict(weights)
    inputs, keep = torch.from_numpy(x), torch.from_numpy(~resets).float()[..., None]
    dout = torch.from_numpy(dy)

    def run():
        shape = (1, x.shape[1], lstm.hidden_size)
        state, y = (torch.zeros(shape), torch.zeros(shape)), []
        for x_t, keep_t in zip(inputs, keep, strict=True):
            y_t, state = theirs(x_t[None], tuple(keep_t * s for s in state))
            y.append(y_t)
        out = torch.cat(y)
        return out.detach().numpy(), torch.autograd.grad(out, [*theirs.parameters()], dout)

    return run


def main(arguments=None):
    """Print milliseconds per training step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, size in (
        ("steps", 128),
        ("batch", 8),
        ("features", 128),
        ("hidden", 128),
        ("episode", 40),
        ("repeats", 30),
        ("threads", 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=size)
    of = parser.parse_args(arguments)
    fastlstm.set_num_threads(of.threads)
    rng = np.random.default_rng(0)
    T, B = of.steps, of.batch
    lstm = fastlstm.LSTM(of.features, of.hidden, rng=0)
    x = rng.standard_normal((T, B, of.features), np.float32)
    dy = rng.standard_normal((T, B, of.hidden), np.float32)
    resets = rng.random((T, B)) < 1 / of.episode
    ways = {
        "one call with resets": lambda: in_one_call(lstm, x, resets, dy),
        "one call without": lambda: without(lstm, x, resets, dy),
        "calls that end where an episode does": lambda: cut(lstm, x, resets, dy),
    }
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: its loop is left out")
    else:
        torch.set_num_threads(of.threads)
        ways["PyTorch, step by step"] = torch_loop(lstm, resets, x, dy)
    y = ways["one call with resets"]()[0]
    times = {name: [] for name in ways}
    for repeat in range(of.repeats + 1):
        for name in rng.permutation(list(ways)):  # whoever follows PyTorch's loop is 5 % slower
            start = time.perf_counter()
            other = ways[name]()[0]
            if repeat:
                times[name].append(time.perf_counter() - start)
            elif name != "one call without":
                np.testing.assert_allclose(other, y, atol=1e-5)
    own = np.median(times["one call with resets"])
    print(f"{resets.sum()} episodes begin within ({T}, {B}, {of.features}, {of.hidden})")
    for name, each in times.items():
        print(f"{1e3 * np.median(each):8.2f} ms  {np.median(each) / own:5.2f} x  {name}")


if __name__ == "__main__":
    main()
