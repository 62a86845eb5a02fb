"""llama.cpp's server with a model of random weights, made in a moment: real inference without a download.

Run as a program, it serves the model that its argument names until its standard input ends.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

WIDTH = 32
WINDOW_TOKENS = 131_072  # a token is a byte here
END, CALL, CALL_END = "<|end|>", "<tool_call>", "</tool_call>"
# No line break behind the marks: a model that draws bytes from a hat would never hit the pair.
TEMPLATE = """{%- if tools %}Each call is an object between <tool_call></tool_call>. The tools:
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
{% endif %}
{%- for message in messages %}[{{ message.role }}] {{ message.content or '' }}
{%- for call in message.tool_calls or [] %}
<tool_call>{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>
{%- endfor %}
{% endfor %}
{%- if add_generation_prompt %}[assistant] {% endif %}"""


def byte_names() -> list[str]:
    """The 256 bytes as byte-level vocabularies write them: printable ones as they are, others as spare letters."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def write_model(path: Path, num_bytes: int = 256, seed: int = 0) -> Path:
    """One layer of random weights over the first `num_bytes` bytes; 128 make it speak ASCII."""
    import gguf
    import numpy as np

    rng, writer, kinds = np.random.default_rng(seed), gguf.GGUFWriter(path, "llama"), gguf.TokenType
    names = byte_names()
    space = names[ord(" ")]
    tokens = [END, CALL, CALL_END, 2 * space, *names[:num_bytes]]
    writer.add_context_length(WINDOW_TOKENS)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([kinds.CONTROL, kinds.USER_DEFINED, kinds.USER_DEFINED, *[kinds.NORMAL] * (1 + num_bytes)])
    writer.add_token_merges([f"{space} {space}"])  # the reader insists on one
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)
    for name in ("token_embd", "output"):
        writer.add_tensor(f"{name}.weight", rng.normal(0, 0.3, (len(tokens), WIDTH)).astype(np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", rng.normal(0, 0.3, (WIDTH, WIDTH)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@contextlib.contextmanager
def served(model: Path) -> Iterator[str]:
    """The URL of a server of `model`, which ends with the context. A process of its own: it may crash."""
    command = [sys.executable, __file__, str(model)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:"), f"the server did not start: {url!r}"
            yield url
        finally:
            process.kill()


def main(model: str) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = WINDOW_TOKENS
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.port = 0
    params.warmup = False
    params.verbosity = 0
    params.use_jinja = True
    params.chat_template = TEMPLATE
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
