// Writing with the cache, and the arithmetic of it: how much there is to compute and to keep.

var GPT = GPT || {};
(() => {
  "use strict";
  const FLOAT = 4; // bytes

  /** Multiply-adds of one pass over `fresh` new tokens against `seen` tokens in all, themselves included, and of the
   *  scores of one next token. Counted as written in src/transformer/planning/cost.py: every query with every key. */
  function passWork(config, fresh, seen) {
    const { d_model: C, d_ff: F, num_layers: L, vocab_size: V } = config;
    const projections = C * (config.num_heads + 2 * config.kv_heads) * config.head_dim + C * C;
    const feedForward = C * F * (config.activation === "swiglu" ? 3 : 2);
    return L * fresh * (projections + feedForward + 2 * seen * C) + V * C;
  }

  /** For each of `fresh` tokens after a prompt: { cached, uncached }, multiply-adds for this one token. */
  function work(config, prompt, fresh) {
    return Array.from({ length: fresh }, (_, i) => ({
      cached: passWork(config, i ? 1 : prompt, prompt + i),
      uncached: passWork(config, prompt + i, prompt + i),
    }));
  }

  /** layers × 2 × heads × tokens × width of a head × 4. */
  const cacheBytes = (config, tokens) => config.num_layers * 2 * config.kv_heads * tokens * config.head_dim * FLOAT;

  /** Reads the prompt, then writes `fresh` tokens one by one, each as choose(logits, textSoFar) says:
   *  { cache, passes: [{ tokens, trace, next }] }, the prefill first. Ends early where choose returns null. */
  function write(model, prompt, fresh, choose) {
    const cache = model.start(prompt.length + fresh);
    const passes = [];
    const text = Array.from(prompt);
    for (let tokens = prompt; passes.length <= fresh && tokens;) {
      const trace = model.advance(tokens, cache);
      const next = choose(trace.logits(trace.T - 1), text);
      passes.push({ tokens, trace, next });
      if (next !== null) text.push(next);
      tokens = next === null ? null : [next];
    }
    return { cache, passes };
  }

  /** The most tokens of a text that leave room for `fresh` more: the last ones. */
  const roomFor = (model, tokens, fresh) => tokens.slice(-Math.max(1, model.config.max_seq_len - fresh));

  GPT.generation = { passWork, work, cacheBytes, write, roomFor };
})();
