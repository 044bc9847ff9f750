// Made by scripts/page_data.py.

var GPT = GPT || {};
GPT.data = GPT.data || {};
GPT.data.generation = {
  "command": "main.py benchmark --preset default --max-seq-len 1024",
  "model": "fresh model with random weights (preset default, 30.7M parameters)",
  "device": "cpu",
  "threads": 2,
  "torch": "2.13.0+cu130",
  "prompt_tokens": 1,
  "layers": 6,
  "width": 256,
  "context": 1024,
  "points": [{"length": 10, "cached": 187.60192647703673, "uncached": 162.54225624575562, "speedup": 1.1541732642949913, "cache_bytes": 122880}, {"length": 19, "cached": 184.82056956665983, "uncached": 140.960691278627, "speedup": 1.31114971053411, "cache_bytes": 233472}, {"length": 38, "cached": 185.33379543205965, "uncached": 125.4514705992718, "speedup": 1.4773345784368623, "cache_bytes": 466944}, {"length": 73, "cached": 213.63178991874256, "uncached": 103.29040745633613, "speedup": 2.068263599493021, "cache_bytes": 897024}, {"length": 141, "cached": 206.36109703051397, "uncached": 79.04629622777136, "speedup": 2.610635878952328, "cache_bytes": 1732608}, {"length": 273, "cached": 208.28830231519476, "uncached": 57.07288077914367, "speedup": 3.6495144361332157, "cache_bytes": 3354624}, {"length": 529, "cached": 200.03179755457853, "uncached": 30.518032026273534, "speedup": 6.554544453664884, "cache_bytes": 6500352}, {"length": 1024, "cached": 190.84388978866824, "uncached": 17.161579720888902, "speedup": 11.120415072067928, "cache_bytes": 12582912}],
};
