"""Extraction's memory does not grow with the number of prompts: 200 prompts, then 2 000, in one process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# A prompt's states are 64 KB, so 1 800 prompts more, kept, would be 118 MB more. What the process's allocators keep
# differs from one try to the next by 20 MB.
SCRIPT = """
import json, re, sys
from pathlib import Path
import jax, numpy as np
from jaxconcepts.models import llama, pretrained
from jaxconcepts.studies.extraction import study as extraction

class Letters:
    bos_token_id = None
    def encode(self, text, add_special_tokens):
        return [ord(letter) - ord("a") for letter in text[:8]]

model = llama.LlamaConfig(
    vocab_size=30, width=4096, layers=3, heads=1, kv_heads=1, head_dim=8, mlp_width=8, context=64
)
folder = Path(sys.argv[1])
pretrained.save_pretrained(model, jax.jit(model.init)(jax.random.key(0)), folder / "model")
extraction.tokenizer_file.load = lambda folder: Letters()
extraction.WINDOW = 2
kept = []
if sys.argv[2] == "keep":
    honest = extraction.language.hidden_states
    def keep(*arguments, **keywords):
        states = honest(*arguments, **keywords)
        kept.append(np.array(states))
        return states
    extraction.language.hidden_states = keep
peaks = []
for name, count in (("warm", 200), ("few", 200), ("many", 2000)):
    with open(folder / "prompts.jsonl", "w") as file:
        for i in range(count):
            file.write(json.dumps({"prompt": "abcdefgh"[: 1 + i % 8], "note": f"{i:2000d}"}) + "\\n")
    config = extraction.ExtractConfig(str(folder / "model"), str(folder / "prompts.jsonl"), bos=False)
    extraction.extract(config, folder / name)
    # Not getrusage: its peak is at least that of the process which started this one.
    status = Path("/proc/self/status").read_text()
    peaks.append(int(re.search("VmHWM:[^0-9]*([0-9]+) kB", status)[1]) * 1024)
print(json.dumps({"growth": peaks[2] - peaks[1], "peak": peaks[2]}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from Linux's /proc")
@pytest.mark.parametrize("leak", ["none", "keep"])
def test_ten_times_the_prompts_take_no_more_memory(tmp_path, leak):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), leak], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    growth = json.loads(done.stdout.splitlines()[-1])["growth"]
    # The second case keeps every state, to see that it would be noticed.
    assert growth > 100e6 if leak == "keep" else growth < 40e6, f"{growth / 1e6:.1f} MB"
