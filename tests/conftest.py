"""For all tests: one thread a process, as there is a process for each core; and no hurry for hypothesis on a busy machine."""
import os
import signal

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; a forked process cannot use the threads of its parent, either
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell: the runs that tests start must hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

from hypothesis import settings  # noqa: E402

settings.register_profile("tadpole", deadline=None)
settings.load_profile("tadpole")
