"""Where jobs run: processes on this machine, Slurm, or Ray; all of them start runner.py, which keeps what has become of a job."""
