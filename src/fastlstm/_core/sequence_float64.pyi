from fastlstm._core.sequence_float32 import *  # noqa: F403
