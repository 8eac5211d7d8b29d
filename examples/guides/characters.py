"""
A character model
=================

A network that reads text and says at each character which will be next: an embedding, two LSTM
layers, dropout and a linear layer, trained on a text that every Python has, the help topics of
`pydoc`. All of the user's code, sampling included, is in the next block.
"""

from pydoc_data.topics import topics

import numpy as np

from fastlstm import LSTM, training

characters, ids = np.unique(list("\n".join(topics.values())), return_inverse=True)
C, H, B, T, STEPS, rng = len(characters), 128, 32, 64, 1500, np.random.default_rng(0)
tracks = ids[: len(ids) // B * B].reshape(B, -1).T  # (steps, B): B places of the text at once
embedding, lstm = training.Embedding(C, 32, rng=rng), LSTM(32, H, 2, dropout=0.1, rng=rng)
dropout, linear = training.Dropout(0.1, rng=rng), training.Linear(H, C, rng=rng)
schedule = training.CosineDecay(1e-2, STEPS, warmup=50)
optimizer, losses = training.Adam([embedding, lstm, linear], lr=schedule), []
for start in np.arange(STEPS) * T % (len(tracks) - T - 1):
    x, x_tape = embedding.forward(tracks[start : start + T])
    y, _, y_tape = lstm.forward(x)
    kept, kept_tape = dropout.forward(y)
    logits, linear_tape = linear.forward(kept)
    loss, dlogits = training.cross_entropy_loss(logits, tracks[start + 1 : start + T + 1])
    linear_grads = linear.backward(linear_tape, dlogits)
    lstm_grads = lstm.backward(y_tape, dropout.backward(kept_tape, linear_grads.x).x)
    optimizer.step([embedding.backward(x_tape, lstm_grads.x), lstm_grads, linear_grads])
    losses.append(loss)
stream, sample = lstm.stream(), [int(np.searchsorted(characters, "T"))]
while len(sample) < 600:  # the largest of logits / temperature and Gumbel noise: a draw of softmax
    logits = linear(stream.step(embedding(sample[-1:])))
    sample.append(int(np.argmax(logits / 0.6 + rng.gumbel(size=C))))
print("".join(characters[sample]))

# %%
# How it learned
# --------------
#
# In bits per character: to guess among all of them costs the logarithm of their number, to know how
# often each occurs the entropy of that.

from matplotlib import pyplot as plt

frequency = np.bincount(ids) / len(ids)
figure, ax = plt.subplots()
ax.plot(np.array(losses) / np.log(2), linewidth=0.8)
ax.axhline(np.log2(C), color="grey", linestyle=":", label="guessing")
ax.axhline(-frequency @ np.log2(frequency), color="grey", linestyle="--", label="frequencies")
ax.set(xlabel="step", ylabel="bits per character", ylim=(0, None))
ax.legend()
plt.show()
print(f"{len(ids)} characters, {C} of them different; {np.mean(losses[-50:]) / np.log(2):.2f} bits")
