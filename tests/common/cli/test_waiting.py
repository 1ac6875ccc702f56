"""How threads wait for one another under the command line."""

import os
import subprocess
import sys

import pytest

CODE = """
import os, sys
from counterpoint.common.cli.main import main
assert "torch" not in sys.modules  # it reads the variable when it is loaded
main(["--version"])
print(os.environ["OMP_WAIT_POLICY"])
"""


@pytest.mark.parametrize(("said", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_asleep_unless_the_user_says_otherwise(said, found):
    env = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | ({"OMP_WAIT_POLICY": said} if said else {})
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.split()[-1] == found
