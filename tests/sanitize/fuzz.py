"""Coverage-guided fuzzing of loaders: ``python tests/sanitize/fuzz.py SECONDS``.

Whatever the bytes: ValueError, TypeError or another error that a loader documents, in 2 GB of
address space and 20 seconds; never a crash. The corpus beside this file is made of small valid
files (``--corpus`` makes it again); findings are kept in the folder `crashes`.
Needs atheris (pip install atheris).
"""

import os
import resource
import sys
import tempfile
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["fastlstm"]):
    import fastlstm
    from fastlstm import exchange, files, onnx

import safetensors

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
WORK = Path(tempfile.mkdtemp())
REFUSED = (ValueError, TypeError, KeyError, MemoryError, OverflowError)
REFUSED += (safetensors.SafetensorError, OSError)
MOST = 2 << 30  # bytes of address space beyond what the process has at the start


def of_safetensors(data: bytes) -> None:
    """Load a file of ours."""
    path = WORK / "x.safetensors"
    path.write_bytes(data)
    layer = files.load(path)
    layer(np.zeros((1, 1, layer.input_size), layer.dtype))


def of_onnx(data: bytes) -> None:
    """Load a model."""
    path = WORK / "x.onnx"
    path.write_bytes(data)
    onnx.load(path)


def of_state(data: bytes) -> None:
    """Make a layer of a state as a pickle could hold it, its numbers from the bytes."""
    provider = atheris.FuzzedDataProvider(data)
    layer = fastlstm.LSTM(2, 3, rng=0)
    state = layer.__getstate__()
    for _ in range(provider.ConsumeIntInRange(1, 3)):
        name = provider.PickValueInList(sorted(state))
        state[name] = provider.PickValueInList(
            [
                provider.ConsumeInt(8),
                provider.ConsumeFloat(),
                None,
                "tanh",
                (),
                np.zeros(provider.ConsumeIntInRange(0, 200), "f4"),
            ]
        )
    other = fastlstm.LSTM.__new__(fastlstm.LSTM)
    other.__setstate__(state)
    other(np.zeros((2, 1, other.input_size), other.dtype))


def of_exchange(data: bytes) -> None:
    """Read a state dict of PyTorch with shapes of the bytes."""
    provider = atheris.FuzzedDataProvider(data)
    names = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_hr_l0"]
    names += ["weight_ih_l1", "weight_ih_l0_reverse", "weight_hh_l9999999"]
    state = {}
    for _ in range(provider.ConsumeIntInRange(1, 6)):
        shape = [provider.ConsumeIntInRange(0, 17) for _ in range(provider.ConsumeIntInRange(0, 3))]
        state[provider.PickValueInList(names)] = np.zeros(shape, provider.PickValueInList("fdie"))
    exchange.from_torch(state)


TARGETS = [of_safetensors, of_onnx, of_state, of_exchange]


def one(data: bytes) -> None:
    """Try one input: its first byte says of what."""
    if not data:
        return
    try:
        TARGETS[data[0] % len(TARGETS)](data[1:])
    except REFUSED:
        pass
    except Exception as error:  # what protobuf says of a broken message
        if "protobuf" not in type(error).__module__ and "onnx" not in type(error).__module__:
            raise


def make_corpus() -> None:
    """Write small valid files."""
    CORPUS.mkdir(exist_ok=True)
    for name, layer in {
        "lstm": fastlstm.LSTM(2, 3, rng=0),
        "gru": fastlstm.GRU(1, 2, 2, bidirectional=True, rng=0),
        "rnn": fastlstm.RNN(1, 1, rng=0),
    }.items():
        for kind, save in ((b"\0", files.save), (b"\1", onnx.export)):
            path = WORK / f"{name}{kind[0]}"
            path = path.with_suffix(".safetensors" if kind == b"\0" else ".onnx")
            save(layer, path)
            (CORPUS / path.name).write_bytes(kind + path.read_bytes())
    for k in (2, 3):
        (CORPUS / f"bytes{k}").write_bytes(bytes([k, *range(1, 60)]))


def main() -> None:
    """Fuzz for some seconds."""
    if "--corpus" in sys.argv:
        make_corpus()
        return
    seconds = sys.argv[1]
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST, used + MOST))
    grown = tempfile.mkdtemp()
    crashes = HERE / "crashes"
    crashes.mkdir(exist_ok=True)
    options = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=0", "-max_len=8192"]
    options += [f"-artifact_prefix={crashes}/", "-print_final_stats=1", "-verbosity=0"]
    atheris.Setup([sys.argv[0], grown, str(CORPUS), *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    main()
