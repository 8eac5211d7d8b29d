"""What fewer bits cost: errors of y, and of networks that were trained and run in them.

    pip install -e '.[sklearn]' statsmodels && pip install --no-deps aeon
    python benchmarks/accuracy.py            # the tables of docs/precision.md, some minutes
    python benchmarks/accuracy.py errors vowels power co2 characters --seeds 1

Networks learn in float32, bfloat16 and int8 from the same parameters and batches, each seed in
turn; the one of float32 then runs in int8, with the parameters that it has. Data sets of aeon are
read as examples/classify.py does; the text is that of `help()`, which Python ships.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastlstm
from fastlstm._commands.demo import co2
from fastlstm._commands.demo.forecaster import HORIZON, Forecaster
from fastlstm.estimators import LSTMClassifier
from fastlstm.training import Adam, Embedding, Linear, clip_grad_norm, cross_entropy_loss

sys.path.append(str(Path(__file__).parents[1] / "examples"))

WAYS = (None, "bfloat16", "int8")


def again(layer: Any, compute_dtype: str | None) -> Any:
    """Return a layer with the same parameters that computes otherwise."""
    other = type(layer)(
        layer.input_size,
        layer.hidden_size,
        layer.num_layers,
        bidirectional=layer.bidirectional,
        compute_dtype=compute_dtype,
    )
    other.flat[...] = layer.flat
    return other


def errors() -> None:
    """Print the errors of y against float64, of an LSTM and of a GRU of 128 units."""
    for cell in ("LSTM", "GRU"):
        print(f"\n{cell}(64, 128), x normal: error of y\n")
        print("| T | float32: max, rms | bfloat16: max, rms | int8: max, rms |\n|---|---|---|---|")
        layer_of = getattr(fastlstm, cell)
        exact = layer_of(64, 128, dtype=np.float64, rng=0)
        rng = np.random.default_rng(1)
        for T in (10, 100, 1000):
            x = rng.standard_normal((T, 16, 64)).astype(np.float32)
            desired = exact(x.astype(np.float64))[0]
            texts = []
            for way in WAYS:
                layer = layer_of(64, 128, compute_dtype=way)
                layer.flat[...] = exact.flat
                error = layer(x)[0] - desired
                texts.append(f"{np.abs(error).max():.1e}, {np.sqrt(np.square(error).mean()):.1e}")
            print(f"| {T} | {' | '.join(texts)} |", flush=True)


def classified(name: str) -> Callable[[int, str | None], tuple[float, float | None]]:
    """Return what trains a classifier of a data set; it returns per cent that it gets right."""

    def run(seed: int, way: str | None) -> tuple[float, float | None]:
        from classify import load

        data = load(name)
        model = LSTMClassifier(compute_dtype=way, random_state=seed).fit(data.X, data.y)
        score = 100 * model.score(data.X_test, data.y_test)
        if way is not None:
            return score, None
        model._network.layers = again(model._network.layers, "int8")
        return score, 100 * model.score(data.X_test, data.y_test)

    return run


def forecast(seed: int, way: str | None) -> tuple[float, float | None]:
    """Return the mean absolute error of `fastlstm demo` in ppm."""
    past, held_out = co2.split(co2.load_co2(), HORIZON)
    model = Forecaster(64, seed)
    model.lstm = again(model.lstm, way)
    for _ in model.train(past, 400):
        pass
    error = co2.errors(model.forecast(past), held_out.ppm)[0]
    if way is not None:
        return error, None
    model.lstm = again(model.lstm, "int8")
    return error, co2.errors(model.forecast(past), held_out.ppm)[0]


def perplexity(seed: int, way: str | None) -> tuple[float, float | None]:
    """Return the perplexity per character of an LSTM of 256 units on the end of a text."""
    from pydoc_data.topics import topics

    text = "".join(topics.values()).encode("ascii", "replace")
    letters, codes = np.unique(np.frombuffer(text, np.uint8), return_inverse=True)
    T, B, steps = 100, 32, 600
    split = len(codes) * 9 // 10
    rng = np.random.default_rng(seed)
    embedding = Embedding(len(letters), 32, rng=rng)
    layer = again(fastlstm.LSTM(32, 256, rng=rng), way)
    head = Linear(256, len(letters), rng=rng)
    adam = Adam([embedding, layer, head])
    for step in range(steps):
        adam.lr = 4e-3 * (1 - step / steps)
        begins = rng.integers(0, split - T - 1, B)
        batch = codes[begins + np.arange(T + 1)[:, np.newaxis]]
        x, x_tape = embedding.forward(batch[:-1])
        y, _, tape = layer.forward(x)
        logits, head_tape = head.forward(y)
        _, dlogits = cross_entropy_loss(logits, batch[1:])
        dhead = head.backward(head_tape, dlogits)
        dlayer = layer.backward(tape, dhead.x)
        gradients = [embedding.backward(x_tape, dlayer.x), dlayer, dhead]
        clip_grad_norm(gradients, max_norm=1.0)
        adam.step(gradients)

    rows = len(codes[split:]) // B
    rest = codes[split : split + rows * B].reshape(B, rows).T

    def on_the_rest(layer: Any) -> float:
        loss, _ = cross_entropy_loss(head(layer(embedding(rest[:-1]))[0]), rest[1:])
        return float(np.exp(loss))

    return on_the_rest(layer), None if way is not None else on_the_rest(again(layer, "int8"))


TASKS = {
    "vowels": ("JapaneseVowels, % right", classified("JapaneseVowels")),
    "power": ("ItalyPowerDemand, % right", classified("ItalyPowerDemand")),
    "co2": ("CO2 of `fastlstm demo`, mean error in ppm", forecast),
    "characters": ("characters, perplexity", perplexity),
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("tables", nargs="*", metavar="NAME", help=f"errors, {', '.join(TASKS)}")
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    arguments = parser.parse_args()
    names = arguments.tables or ["errors", *TASKS]
    if "errors" in names:
        errors()
    print("\n| | float32 | bfloat16 | int8 | float32, run in int8 |\n|---|---|---|---|---|")
    for name in filter(TASKS.get, names):
        title, run = TASKS[name]
        figures = [[run(seed, way) for way in WAYS] for seed in range(arguments.seeds)]
        columns = [[seed[i][0] for seed in figures] for i in range(3)]
        columns.append([seed[0][1] for seed in figures])
        texts = (f"{np.mean(column):.2f} ± {np.std(column):.2f}" for column in columns)
        print(f"| {title} | {' | '.join(texts)} |", flush=True)


if __name__ == "__main__":
    main()
