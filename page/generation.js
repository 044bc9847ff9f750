// Generation with the cache, and its cost: multiply-adds and bytes.

var GPT = GPT || {};
(() => {
  "use strict";
  const FLOAT = 4; // bytes

  /** Multiply-adds of one pass over `fresh` new tokens that attend to `seen` tokens, themselves included, and of the
   *  logits of one next token. Counted as in src/transformer/planning/cost.py: every query with every key. */
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

  /** Reads the prompt, then writes `fresh` tokens one by one, each chosen by choose(logits, textSoFar):
   *  { cache, passes: [{ tokens, trace, next }] }, the prefill first. Stops early if choose returns null. */
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

  /** The last tokens of a text, as many as leave `fresh` positions of the context free. */
  const promptThatFits = (model, tokens, fresh) => tokens.slice(-Math.max(1, model.config.max_seq_len - fresh));

  GPT.generation = { passWork, work, cacheBytes, write, promptThatFits };
})();
