// Models whose shapes are public: GPT-2's code, and the papers arXiv 2005.14165, 2407.21783 and 2412.19437.

var GPT = GPT || {};
GPT.known = [
  { name: "GPT-2 (small)", year: 2019, layers: 12, width: 768, hidden: 3072, heads: 12, kvHeads: 12, headWidth: 64, context: 1024,
    vocabulary: 50257, parameters: 124e6, tokens: null, parts: "learned positions, layer norm, GELU" },
  { name: "GPT-3", year: 2020, paper: "2005.14165", layers: 96, width: 12288, hidden: 49152, heads: 96, kvHeads: 96, headWidth: 128,
    context: 2048, vocabulary: 50257, parameters: 175e9, tokens: 300e9, parts: "learned positions, layer norm, GELU" },
  { name: "Llama 3 8B", year: 2024, paper: "2407.21783", layers: 32, width: 4096, hidden: 14336, heads: 32, kvHeads: 8, headWidth: 128,
    context: 131072, vocabulary: 128256, parameters: 8.03e9, tokens: 15e12, parts: "rotary, RMSNorm, SwiGLU" },
  { name: "Llama 3 405B", year: 2024, paper: "2407.21783", layers: 126, width: 16384, hidden: 53248, heads: 128, kvHeads: 8, headWidth: 128,
    context: 131072, vocabulary: 128256, parameters: 405e9, tokens: 15.6e12, parts: "rotary, RMSNorm, SwiGLU" },
  { name: "DeepSeek-V3", year: 2024, paper: "2412.19437", layers: 61, width: 7168, heads: 128, kvHeads: null, latent: 576,
    context: 131072, vocabulary: 129280, parameters: 671e9, active: 37e9, tokens: 14.8e12,
    parts: "rotary, RMSNorm, SwiGLU, 256 experts" },
];
