"""llama.cpp with a small model of random weights on a port of the loopback: a key-less server that enforces a schema. Holds no test."""

import importlib.util
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import until

NAME = "random-llama"
"""By which the server knows its model."""
WIDTH, HEADS, BLOCKS, INNER, CONTEXT, SLOTS = 32, 2, 2, 64, 8192, 4
LIKELY = {**dict.fromkeys("abcdef", 4.0), '"': 4.3}
ENDS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SERVE = """
import sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.hostnames = sys.argv[1], 0, ["127.0.0.1"]
params.model_alias = {sys.argv[4]}
params.n_ctx, params.n_parallel, params.warmup, params.use_jinja = int(sys.argv[2]), int(sys.argv[3]), False, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print("\\nat", server.listening_address, flush=True)
sys.stdin.read()
"""


class Server:
    """A running server. `url` ends in /v1."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str) -> None:
        self.process, self.url = process, f"{url}/v1"

    def kill(self) -> None:
        """At once, as a machine that fails."""
        self.process.kill()
        self.process.wait()


def byte_tokens() -> list[str]:
    """The letters that stand for the 256 bytes in the vocabulary of GPT-2, in the order of the bytes."""
    plain = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


def model(path: Path, seed: int = 0) -> Path:
    """A llama of random weights that reads bytes, about 150 kB. It likes small letters and quotation marks: its strings end soon."""
    import gguf

    random, writer = np.random.default_rng(seed), gguf.GGUFWriter(path, "llama")
    words = [*byte_tokens(), "Ġt", *ENDS]
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.NORMAL] * 257 + [gguf.TokenType.CONTROL] * 3)
    writer.add_token_merges(["Ġ t"])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(259)
    writer.add_chat_template(TEMPLATE)
    shapes = {"attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, WIDTH), "attn_v": (WIDTH, WIDTH), "attn_output": (WIDTH, WIDTH),
              "ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}  # fmt: skip
    tensors = {"token_embd": (len(words), WIDTH), "output": (len(words), WIDTH)}
    tensors |= {f"blk.{block}.{name}": shape for block in range(BLOCKS) for name, shape in shapes.items()}
    for name, shape in tensors.items():
        weights = random.normal(0, 0.3, shape).astype(np.float32)
        if name == "token_embd":
            weights[:, 0] = 1  # the same for every token, and no block writes there: a bias of the output
        elif name == "output":
            weights[:, 0] = [LIKELY.get(word, 0.0) for word in words]
        elif name.endswith(("attn_output", "ffn_down")):
            weights *= 0.2
            weights[0] = 0
        writer.add_tensor(f"{name}.weight", weights)
    for name in ("output_norm", *(f"blk.{block}.{norm}" for block in range(BLOCKS) for norm in ("attn_norm", "ffn_norm"))):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@contextmanager
def serving(weights: Path, log: Path) -> Iterator[Server]:
    """Up and ready, on a free port, in a process of its own. Skips the test where xllamacpp is not installed."""
    for package in ("xllamacpp", "gguf"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: no llama.cpp server to ask (pip install {package})")
    command = [sys.executable, "-c", SERVE, str(weights), str(CONTEXT * SLOTS), str(SLOTS), NAME]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stream, stderr=stream)

    def address() -> str:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        return next((line[3:].strip() for line in log.read_text(errors="replace").splitlines() if line.startswith("at ")), "")

    def healthy() -> bool:
        with suppress(OSError):
            return bool(address()) and urllib.request.urlopen(f"{address()}/health", timeout=5).status == 200
        return False

    try:
        until(healthy)
        yield Server(process, address())
    finally:
        process.kill()
        process.wait()
