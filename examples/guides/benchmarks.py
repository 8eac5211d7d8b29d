"""
Benchmarks, and how to read the roofline
========================================

``fastlstm bench`` measures your shape on your machine; with ``--peers`` beside PyTorch, ONNX
Runtime, OpenVINO and JAX, which take turns in one process, so that a busy neighbour hits all::

    fastlstm bench --shapes 100,32,64,64 --train --threads 1
    fastlstm bench --peers --shapes 100,32,64,64

Results of a whole grid are kept in ``benchmarks/results``, made by ``fastlstm bench --peers
--grid benchmarks/grid.json --threads 1 2``. This page reads one of these files.
"""

import json
from pathlib import Path

here = Path.cwd().resolve()
root = next(folder for folder in (here, *here.parents) if (folder / "benchmarks").is_dir())
results = json.loads((root / "benchmarks/results/epyc-avx512-0.1.0.json").read_text())
print(list(results), *(f"{k}: {v}" for k, v in results.items() if not isinstance(v, (list, dict))))

# %%
# A *roofline* is what the machine could do at best: for each shape the larger of two times, that of
# all matrix products at the speed of the fma units, and that of reading the recurrent weights once
# per step from the nearest cache that holds them. Both speeds are measured by small loops that take
# turns with the libraries. At 80 % a call took 1.25 times as long as that.
#
# - A bar *above* 100 % is possible: the bound takes all weights from one cache, and a part of them
#   may stay in a nearer one, or in registers.
# - Small shapes are far below it, because of what it does not count: the call itself (5 to 9 us)
#   and the activations of the gates.
# - A ratio to a peer is the median over rounds in which the libraries took turns.

from matplotlib import pyplot as plt

cases = [case for case in results["results"] if case["kind"] == "forward" and case["threads"] == 1]
shapes = ["({T}, {B}, {I}, {H})".format(**case) for case in cases]
figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 0.28 * len(cases) + 1), sharey=True)
left.barh(shapes, [case["percent_of_roofline"] for case in cases])
left.axvline(100, color="black", linewidth=0.8)
left.set(xlabel="per cent of the roofline", title="forward, (T, B, I, H)")
right.barh(shapes, [case["ratio"] for case in cases], color="C1")
right.axvline(1, color="black", linewidth=0.8)
right.set(xlabel="times as fast as the fastest peer", title="one thread, AMD EPYC, Zen 4")
left.invert_yaxis()
plt.show()
