"""llama.cpp (the package xllamacpp), to read the files that this project writes and to compare ids.

Each model is served by a process of its own, which is killed when it is no longer needed: in the test's process the
library sometimes waited for ever when it freed a model.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GREEDY = {"temperature": 0, "cache_prompt": False, "stream": False}


class LlamaCpp:
    """A model in a GGUF file, on one thread, with a float32 cache."""

    def __init__(self, path: Path, context: int = 256) -> None:
        import pytest  # here, since each server would import it too, in 0.2 s

        pytest.importorskip("xllamacpp", reason="the package xllamacpp is llama.cpp")
        line = [sys.executable, __file__, str(path), str(context)]
        server = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        weakref.finalize(self, stop, server)
        assert server.stdout is not None
        self.address = next(line for line in server.stdout if line.startswith("http")).strip()

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Returns the ids that follow a prompt, the most probable one each time, at most to the end of the text."""
        request = {"prompt": list(ids), "n_predict": count, "return_tokens": True}
        tokens: list[int] = self._post("/completion", request | GREEDY)["tokens"]
        return tokens

    def log_probabilities(self, ids: Sequence[int], count: int) -> dict[int, float]:
        """Returns the logarithms of the probabilities of the `count` most probable ids after a prompt."""
        # llama.cpp reports nothing for a token that ends within a character, so the prompt's last one is sampled.
        request = {"prompt": list(ids), "n_predict": 1, "n_probs": count, "logit_bias": [[ids[-1], 1000.0]]}
        answer = self._post("/completion", request | GREEDY)
        return {token["id"]: token["logprob"] for token in answer["completion_probabilities"][0]["top_logprobs"]}

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """Returns the ids of a text, without one at the beginning; `special`: special tokens in it are meant."""
        request = {"content": text, "add_special": False, "parse_special": special}
        tokens: list[int] = self._post("/tokenize", request)["tokens"]
        return tokens

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        content = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}{path}", content, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


def stop(server: subprocess.Popen[str]) -> None:
    """Ends a server."""
    server.kill()
    server.communicate()


def serve(path: str, context: int) -> None:
    """Prints the address of a server, and serves until standard input ends."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx = path, context
    params.n_gpu_layers = params.verbosity = 0
    params.warmup = params.fit_params = False
    params.n_parallel = params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
