"""What a process goes through while the core works: forks, signals, limits, its end, a kill."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from helpers import forced_threads

import fastlstm

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="no POSIX system")


def net_and_input():
    """Return a layer that four threads share, and its input."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 16, 40)).astype(np.float32)
    return fastlstm.LSTM(40, 72, 2, bidirectional=True, rng=0), x


def digest(_=None):
    """Return the bytes of an output and of a gradient."""
    net, x = net_and_input()
    with forced_threads(4):
        y, _, tape = net.forward(x)
        return y.tobytes() + net.backward(tape, np.ones_like(y)).flat.tobytes()


def status_of(child):
    """Return how a child ended, or kill it after a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hangs"


def in_child(function):
    """Return the exit code of a forked child that runs a function."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if function() else 2
        finally:
            os._exit(code)
    return status_of(child)


@posix
@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_fork_in_the_middle_of_calls_leaves_a_child_that_works():
    expected, stop = digest(), threading.Event()

    def call():
        while not stop.is_set():
            digest()

    def fork():  # from a thread that is not the main one
        codes.extend(in_child(lambda: digest() == expected) for _ in range(5))

    codes = []
    callers = [threading.Thread(target=call) for _ in range(3)]
    forking = threading.Thread(target=fork)
    for thread in [*callers, forking]:
        thread.start()
    forking.join()
    stop.set()
    for thread in callers:
        thread.join()
    assert codes == [0] * 5


def test_spawned_processes_give_the_same_bits():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(digest, range(2)) == [digest()] * 2


@posix
def test_signals_do_not_disturb_a_call():
    expected, heard = digest(), []
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        while len(heard) < 20:
            assert digest() == expected
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("daemon", [False, True])
def test_the_interpreter_ends_with_workers_alive(daemon):
    code = (
        "import threading, sys, time, test_process as t\n"
        "def forever():\n"
        "    while True: t.digest()\n"
        f"if {daemon}: threading.Thread(target=forever, daemon=True).start(); time.sleep(0.05)\n"
        "t.digest()\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, timeout=60, capture_output=True
        )
        assert (done.returncode, done.stderr) == (0, b"")


def test_weights_that_change_during_calls_are_seen_by_the_next():
    """While another thread writes, a call may see some of the old and some of the new."""
    net, x = net_and_input()
    old, new = net.flat.copy(), -net.flat
    stop, wrong = threading.Event(), []

    def call():
        while not stop.is_set():
            y, _ = net(x)
            if not np.isfinite(y).all():
                wrong.append(y)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for thread in callers:
        thread.start()
    for k in range(400):
        net.flat[...] = old if k % 2 else new
    net.flat[...] = new
    y, _ = net(x)  # while the others still run
    stop.set()
    for thread in callers:
        thread.join()
    fresh, _ = net_and_input()
    fresh.flat[...] = new
    assert not wrong
    np.testing.assert_array_equal(y, fresh(x)[0])
    np.testing.assert_array_equal(net(x)[0], fresh(x)[0])


@posix
@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_without_memory_there_is_a_memory_error_and_then_work():
    import resource

    net, x = net_and_input()
    net(x)

    def limited():
        with open("/proc/self/statm") as file:
            here = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (here + (64 << 20),) * 2)
        errors = 0
        for T in (100_000, 30_000, 3_000):  # of the result, of the tape
            try:
                net.forward(np.broadcast_to(x[:1, :1], (T, 16, 40)))
            except MemoryError:
                errors += 1
        return errors >= 2 and np.isfinite(net(x)[0]).all()

    if not os.path.exists("/proc/self/statm"):
        pytest.skip("no /proc here")
    assert in_child(limited) == 0


@posix
@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_where_no_thread_may_be_started_the_caller_works_alone():
    import resource

    expected = digest()

    def limited():
        if os.getuid() == 0:  # whom the limit does not bind
            os.setuid(65534)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        with pytest.raises(RuntimeError):
            threading.Thread(target=print).start()
        return digest() == expected

    assert in_child(limited) == 0


def save_layer(path, net):
    pytest.importorskip("safetensors")
    from fastlstm import files

    files.save(net, path, overwrite=True)


def save_c(path, net):
    from fastlstm import export

    export.c(path, net, overwrite=True, single_header=True)


@posix
@pytest.mark.parametrize(("save", "name"), [(save_layer, "x.safetensors"), (save_c, "x.h")])
def test_a_kill_while_saving_leaves_the_old_file_or_the_new_one(save, name, tmp_path):
    path = tmp_path / name
    nets = [fastlstm.LSTM(3, 24, rng=seed) for seed in (0, 1)]
    whole = set()
    for net in nets:
        save(path, net)
        whole.add(path.read_bytes())
    code = (
        f"import sys, fastlstm, test_process as t\n"
        "nets = [fastlstm.LSTM(3, 24, rng=seed) for seed in (0, 1)]\n"
        "print(flush=True)\n"
        "while True:\n"
        f"    for net in nets: t.{save.__name__}({str(path)!r}, net)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    for k in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE
        )
        child.stdout.readline()
        time.sleep(0.003 * k)
        child.kill()
        child.communicate()
        assert path.read_bytes() in whole


def test_a_second_interpreter_is_refused_in_words():
    code = (
        "import fastlstm, sys\n"
        "try: import _interpreters as api\n"
        "except ImportError: import _xxsubinterpreters as api\n"
        "one = api.create()\n"
        "text = '''\n"
        "try: import fastlstm._core.runtime\n"
        "except ImportError as error: print('ImportError:', error)\n"
        "else: print('imported')\n"
        "'''\n"
        "(getattr(api, 'exec', None) or api.run_string)(one, text)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, timeout=120, capture_output=True, text=True
    )
    assert "ImportError:" in done.stdout, done
    assert "once per process" in done.stdout or "interpreter" in done.stdout


def test_what_is_packed_while_another_thread_writes_is_not_taken_for_what_it_is_not(monkeypatch):
    from fastlstm._layers import recurrent

    net, x = net_and_input()
    expected, first = net(x)[0], net.flat.copy()
    make_weights, packed = recurrent.make_weights, []

    def make_while_another_thread_writes(*arguments, **options):
        net.flat[...] = 0
        packed.append(make_weights(*arguments, **options))
        net.flat[...] = first
        return packed[-1]

    monkeypatch.setattr(recurrent, "make_weights", make_while_another_thread_writes)
    other, _ = net_and_input()
    net = other
    np.testing.assert_array_equal(net(x)[0], expected)
    assert packed
    np.testing.assert_array_equal(net(x)[0], expected)
