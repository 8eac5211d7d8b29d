"""
Threads and latency in a service
================================

By default a call uses as many threads as there are CPUs for this process, its affinity and its
quota looked at; small calls use fewer. `show_config` says what was found.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from matplotlib import pyplot as plt

import fastlstm

fastlstm.show_config()

# %%
# In a service that has threads of its own, one thread per call is best. The layers may be called
# from any number of threads at once, since the GIL is released and nothing is shared but weights:

fastlstm.set_num_threads(1)
lstm = fastlstm.LSTM(8, 64, rng=0)
requests = np.random.default_rng(0).standard_normal((40, 50, 1, 8), np.float32)
with ThreadPoolExecutor(2) as pool:
    answers = list(pool.map(lambda x: lstm(x)[0], requests))
same = [np.array_equal(lstm(x)[0], y) for x, y in zip(requests, answers, strict=True)]
print("same bits:", all(same))

# %%
# For values that come one by one, a stream steps without the overhead of a call: each of its
# steps allocates nothing but its result, and nothing at all with ``out=``. One stream for one
# sequence; `reset` begins another and takes the weights anew. Where this page was made:

stream = lstm.stream()
times = []
for x_t in requests.reshape(-1, 1, 8):
    start = time.perf_counter()
    stream.step(x_t)
    times.append(1e6 * (time.perf_counter() - start))

figure, ax = plt.subplots()
ax.hist(times, bins=np.geomspace(min(times), max(times), 60))
ax.set(xscale="log", yscale="log", xlabel="microseconds per step, H = 64", ylabel="steps")
plt.show()
print("median {:.1f}, 99 % {:.1f}, worst {:.0f} us".format(*np.percentile(times, [50, 99, 100])))

# %%
# What is worst here is the machine's doing: other processes, interrupts. From C, where there is
# no interpreter either, see :doc:`embedding`.
