from fastlstm._sequence_float32 import *  # noqa: F403
