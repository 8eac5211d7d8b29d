"""Our threads in `threadpoolctl`, which shows and limits the thread pools of a process.

Importing this module registers them. ``import fastlstm`` does it by itself if threadpoolctl has
been imported before, and so does `fastlstm.estimators`. Needs threadpoolctl 3.2 or later.

Decisions:
a) ``user_api`` is "fastlstm": ``threadpool_limits(1)`` limits every pool, ours too, while a limit
   on "blas" or "openmp" alone leaves ours as it is, since it is neither.
b) threadpoolctl looks for loaded libraries by the beginning of their file names, and others may
   have a `runtime` too; the C functions that ours shows tell it from them.

Examples
--------
>>> import fastlstm.threadpool
>>> from threadpoolctl import threadpool_limits
>>> with threadpool_limits(limits=1, user_api="fastlstm"):
...     fastlstm.get_num_threads()
1
"""

from fastlstm._version import __version__

try:
    from threadpoolctl import LibController, register
except ImportError as _error:
    raise ImportError(
        "fastlstm.threadpool needs threadpoolctl 3.2 or later: pip install 'threadpoolctl>=3.2'"
    ) from _error

__all__ = ["FastlstmController"]


class FastlstmController(LibController):
    """What threadpoolctl asks of a library; the limit holds for the whole process.

    Parameters
    ----------
    filepath, prefix, parent
        Threadpoolctl's own: it makes these objects.
    """

    user_api = "fastlstm"
    internal_api = "fastlstm"
    filename_prefixes: tuple[str, ...] = ("runtime.",)
    check_symbols: tuple[str, ...] = ("fastlstm_get_num_threads", "fastlstm_set_num_threads")

    def get_num_threads(self) -> int:
        """Return the largest number of threads that a call may use.

        Returns
        -------
        int
            Threads.
        """
        return int(self.dynlib.fastlstm_get_num_threads())

    def set_num_threads(self, num_threads: int) -> None:
        """Set the largest number of threads that a call may use.

        Parameters
        ----------
        num_threads : int
            At least 1.
        """
        self.dynlib.fastlstm_set_num_threads(num_threads)

    def get_version(self) -> str:
        """Return the version of fastlstm.

        Returns
        -------
        str
            As `fastlstm.__version__`.
        """
        return __version__


register(FastlstmController)
