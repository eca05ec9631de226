import subprocess
import sys
import textwrap

import pytest


def faults_of_steps(settled: bool) -> int:
    """Return the page faults of five steps that allocate alike, after ten others, in a process of its own."""
    program = textwrap.dedent(f"""
        import os, resource
        from graphrec.process import settle_process
        if {settled}:
            settle_process()
            assert os.environ["OMP_WAIT_POLICY"]
        import torch
        def step(blocks=4):
            return [torch.ones(16_000_000) for _ in range(blocks)]
        for _ in range(10):  # until the heap has found its shape
            step()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            step()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator's settings are glibc's")
def test_memory_that_was_freed_is_not_faulted_in_again():
    assert faults_of_steps(settled=True) < 100
    assert faults_of_steps(settled=False) > 100_000


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator's settings are glibc's")
def test_freed_memory_goes_back_when_asked():
    program = textwrap.dedent("""
        from graphrec.process import return_freed_memory, settle_process
        settle_process()
        import torch
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * 4096
        blocks = [torch.ones(16_000_000) for _ in range(4)]
        del blocks
        kept = resident()
        return_freed_memory()
        print(kept - resident())
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 200_000_000


@pytest.mark.parametrize("lives_long", [False, True])
@pytest.mark.parametrize("blocks", [4, 24])
@pytest.mark.skipif(sys.platform != "linux", reason="the allocator's settings are glibc's")
def test_a_process_that_lives_long_keeps_little(blocks, lives_long):
    program = textwrap.dedent(f"""
        import threading
        from graphrec.process import keep_little_memory, settle_process
        settle_process()
        import torch
        if {lives_long}:
            keep_little_memory()
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * 4096
        def work():
            blocks = [torch.ones(12_000_000 // {blocks}) for _ in range({blocks})]
            del blocks
            print(resident() - before)
        thread = threading.Thread(target=work)
        before = resident()
        thread.start()
        thread.join()
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (int(done.stdout) < 24_000_000) == lives_long  # of 48 MB


def test_our_own_warnings_are_one_line():
    from graphrec.__main__ import one_line
    from graphrec.errors import LongHistoryWarning

    assert one_line(LongHistoryWarning("long"), LongHistoryWarning, "file.py", 3) == "graphrec: warning: long\n"
    assert one_line(UserWarning("theirs"), UserWarning, "file.py", 3).startswith("file.py:3: UserWarning: theirs")
