#!/usr/bin/env python3
"""Sets up the environment in .venv, if need be, and runs in it what is asked for.

  python launch.py demo                     train a LoRA on pictures of a frog and show what it has learned
  python launch.py test [pytest options]    run the tests
  python launch.py serve [options]          serve the training service's web APIs; --help lists the options
  python launch.py doctor                   say what this machine has, what is wrong, and how to mend it
  python launch.py setup                    only set up; with --dev also what the tests need
  python launch.py [options of accelerate launch] train_network.py [options of the script]

demo, test and setup take --torch cpu|cu126|cu130|...: that build of torch instead of the one that fits the machine.
"""
import sys

# Any Python that there is can read this file and give the advice; what follows needs 3.10 or newer.
if sys.version_info < (3, 10):
    sys.stderr.write(
        "[launch] error: Python %d.%d is too old, 3.10 to 3.13 will do: install Python 3.11 "
        "(https://www.python.org/downloads/) and start this file with it: python3.11 launch.py %s\n"
        % (sys.version_info[0], sys.version_info[1], " ".join(sys.argv[1:]))
    )
    sys.exit(2)

from launcher.commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], __doc__))
