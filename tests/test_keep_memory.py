"""The allocator: once told to, the process takes no new pages in step after step."""

import subprocess
import sys

import pytest

PROBE = """
import resource
import torch
from hippodrome.memory import keep_memory

kept = {told} and keep_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

model = torch.nn.Sequential(torch.nn.Linear(32, 4096), torch.nn.ReLU(), torch.nn.Linear(4096, 32))
x = torch.randn(4096, 32)

def step():
    model(x).sum().backward()
    model.zero_grad()

for _ in range(6):
    step()
before = faults()
for _ in range(10):
    step()
print(kept, faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc has these parameters")
def test_a_step_finds_the_pages_of_the_step_before_it() -> None:
    found = {}
    for told in (False, True):
        words = [sys.executable, "-c", PROBE.format(told=told)]
        # An empty environment: the allocator's own variables would decide beforehand.
        answer = subprocess.run(words, capture_output=True, text=True, check=True, env={})
        kept, faults = answer.stdout.split()
        found[told] = int(faults)
    if kept != "True":
        pytest.skip("the C library here is not glibc, and keeps its own ways")
    # Activations and their gradients are 64 MiB each; a page has 64 KiB at most on the machines we know.
    assert found[False] > 10 * 2 * 2**26 // 2**16
    # Now and then an aligned piece just misses the hole that its like left, and takes fresh pages.
    assert found[True] < found[False] / 5
