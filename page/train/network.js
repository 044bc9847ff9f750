// A small GPT that can learn: the forward pass, the backward pass, and AdamW. operations.js has the parts.
//
// The weights are 64-bit numbers in one flat array, and their gradients are in a second one of the same length. A name gives
// a view of its part, with the name that PyTorch uses: network.weights["blocks.0.attention.qkv.weight"] is (3C, C).
//
//   const network = GPT.network({ vocab_size: 256, d_model: 32, num_heads: 4, num_layers: 2, d_ff: 128, max_seq_len: 48 });
//   network.loss(tokens, targets, 8)      // tokens and targets: 8 rows, one after the other -> the mean loss in nats
//   network.backward()                    // fills network.gradients with the slope of that loss for every weight
//   network.step(0.005)                   // AdamW: moves every weight by about that much, against its gradient

var GPT = GPT || {};
GPT.engine("network", (GPT) => {
  "use strict";
  const ops = GPT.operations;
  const [INIT, NORM_EPS] = [0.02, 1e-5];
  const ADAMW = { beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.1, clip: 1 };

  /** The shape of every weight, in PyTorch's order. */
  function shapes({ vocab_size: V, d_model: C, num_layers: L, d_ff: F, max_seq_len: T }) {
    const found = { "embeddings.token.weight": [V, C], "embeddings.position.weight": [T, C] };
    const add = (prefix, entries) => {
      for (const [name, shape] of Object.entries(entries)) found[prefix + name] = shape;
    };
    const linear = (name, O, I) => ({ [`${name}.weight`]: [O, I], [`${name}.bias`]: [O] });
    const norm = (name) => ({ [`${name}.weight`]: [C], [`${name}.bias`]: [C] });
    for (let l = 0; l < L; l += 1) {
      add(`blocks.${l}.`, { ...norm("attention_norm"), ...linear("attention.qkv", 3 * C, C), ...linear("attention.out", C, C),
        ...norm("feedforward_norm"), ...linear("feedforward.up", F, C), ...linear("feedforward.down", C, F) });
    }
    return Object.assign(found, norm("final_norm"));
  }

  class Network {
    constructor(config, random = Math.random) {
      Object.assign(this, { config, shapes: shapes(config), steps: 0, buffers: {} });
      const sizes = Object.values(this.shapes).map((shape) => shape.reduce((product, length) => product * length, 1));
      this.size = sizes.reduce((sum, size) => sum + size, 0);
      for (const kind of ["all", "gradient", "mean", "meanSquare"]) this[kind] = new Float64Array(this.size);
      [this.weights, this.gradients] = [this.views(this.all), this.views(this.gradient)];
      this.initialise(random);
    }

    /** The parts of a flat array, by name. */
    views(flat) {
      let at = 0;
      return Object.fromEntries(Object.entries(this.shapes).map(([name, shape]) => {
        const from = at;
        at += shape.reduce((product, length) => product * length, 1);
        return [name, flat.subarray(from, at)];
      }));
    }

    /** Random matrices with a small standard deviation, as in GPT-2; norms begin as 1 and 0, biases as 0. */
    initialise(random) {
      const writesToStream = /(attention\.out|feedforward\.down)\.weight$/;
      for (const [name, weight] of Object.entries(this.weights)) {
        const std = writesToStream.test(name) ? INIT / Math.sqrt(2 * this.config.num_layers) : INIT;
        if (this.shapes[name].length === 2) for (let i = 0; i < weight.length; i += 1) weight[i] = std * normal(random);
        else weight.fill(name.endsWith("norm.weight") ? 1 : 0);
      }
    }

    /** Arrays for the intermediate values of B rows of T tokens, and for their gradients; made once for each B and T. */
    allocate(B, T) {
      const { vocab_size: V, d_model: C, num_heads: H, num_layers: L, d_ff: F } = this.config;
      const N = B * T;
      const make = (sizes) => Object.fromEntries(Object.entries(sizes).map(([name, size]) => [name, new Float64Array(size)]));
      const one = { x: N * C, normed1: N * C, scale1: N, read1: N * C, qkv: N * 3 * C, weights: B * H * T * T, gathered: N * C,
        added: N * C, middle: N * C, normed2: N * C, scale2: N, read2: N * C, up: N * F, hidden: N * F };
      Object.assign(this, this.buffers[`${B} ${T}`] ??= {
        rows: B, length: T, blocks: Array.from({ length: L }, () => make(one)),
        last: make({ x: N * C, normed: N * C, scale: N, final: N * C, probs: N * V }),
        d: make({ x: N * C, read: N * C, qkv: N * 3 * C, gathered: N * C, up: N * F, hidden: N * F, final: N * C, logits: N * V }),
      });
    }

    /** Fills probs (B * T, V) up to the logits: tokens (B * T), B rows one after the other. */
    forward(tokens, B) {
      const { vocab_size: V, d_model: C, num_heads: H, d_ff: F } = this.config;
      const [N, T, W] = [tokens.length, tokens.length / B, this.weights];
      this.allocate(B, T);
      ops.embed(this.blocks.length ? this.blocks[0].x : this.last.x, tokens, W["embeddings.token.weight"], W["embeddings.position.weight"], N, T, C);
      this.blocks.forEach((a, l) => {
        const w = (name) => W[`blocks.${l}.${name}`];
        ops.layerNorm(a.read1, a.normed1, a.scale1, a.x, w("attention_norm.weight"), w("attention_norm.bias"), N, C, NORM_EPS);
        ops.linear(a.qkv, a.read1, w("attention.qkv.weight"), w("attention.qkv.bias"), N, C, 3 * C);
        ops.attention(a.gathered, a.weights, a.qkv, B, T, C, H);
        ops.linear(a.added, a.gathered, w("attention.out.weight"), w("attention.out.bias"), N, C, C);
        sum(a.middle, a.x, a.added); // the residual stream
        ops.layerNorm(a.read2, a.normed2, a.scale2, a.middle, w("feedforward_norm.weight"), w("feedforward_norm.bias"), N, C, NORM_EPS);
        ops.linear(a.up, a.read2, w("feedforward.up.weight"), w("feedforward.up.bias"), N, C, F);
        ops.relu(a.hidden, a.up);
        ops.linear(a.added, a.hidden, w("feedforward.down.weight"), w("feedforward.down.bias"), N, F, C);
        sum(l + 1 < this.blocks.length ? this.blocks[l + 1].x : this.last.x, a.middle, a.added);
      });
      const { x, normed, scale, final, probs } = this.last;
      ops.layerNorm(final, normed, scale, x, W["final_norm.weight"], W["final_norm.bias"], N, C, NORM_EPS);
      ops.linear(probs, final, W["embeddings.token.weight"], null, N, C, V); // the token table once more: tied
      this.tokens = tokens;
      return probs;
    }

    /** The mean loss in nats of B rows: tokens and targets (B * T); a target is the token that really came next. */
    loss(tokens, targets, B) {
      this.targets = targets;
      return ops.crossEntropy(this.forward(tokens, B), targets, tokens.length, this.config.vocab_size);
    }

    /** The same operations in reverse order. Each passes the gradient on, from the loss back to every weight. */
    backward() {
      const { vocab_size: V, d_model: C, num_heads: H, d_ff: F } = this.config;
      const { d, last, tokens, targets, rows: B, length: T, weights: W, gradients: G } = this;
      const N = B * T;
      this.gradient.fill(0);
      for (const name of ["x", "final"]) d[name].fill(0);
      ops.crossEntropyBackward(d.logits, last.probs, targets, N, V);
      ops.linearBackward(d.logits, last.final, W["embeddings.token.weight"], d.final, G["embeddings.token.weight"], null, N, C, V);
      ops.layerNormBackward(d.final, last.normed, last.scale, W["final_norm.weight"], d.x, G["final_norm.weight"], G["final_norm.bias"], N, C);
      for (let l = this.blocks.length - 1; l >= 0; l -= 1) {
        const a = this.blocks[l];
        const [w, g] = [(name) => W[`blocks.${l}.${name}`], (name) => G[`blocks.${l}.${name}`]];
        // d.x is the gradient of the residual stream. A sum passes it to both parts: it stays in d.x, and enters the branch.
        for (const name of ["hidden", "up", "read"]) d[name].fill(0);
        ops.linearBackward(d.x, a.hidden, w("feedforward.down.weight"), d.hidden, g("feedforward.down.weight"), g("feedforward.down.bias"), N, F, C);
        ops.reluBackward(d.hidden, a.hidden, d.up);
        ops.linearBackward(d.up, a.read2, w("feedforward.up.weight"), d.read, g("feedforward.up.weight"), g("feedforward.up.bias"), N, C, F);
        ops.layerNormBackward(d.read, a.normed2, a.scale2, w("feedforward_norm.weight"), d.x, g("feedforward_norm.weight"), g("feedforward_norm.bias"), N, C);
        for (const name of ["gathered", "qkv", "read"]) d[name].fill(0);
        ops.linearBackward(d.x, a.gathered, w("attention.out.weight"), d.gathered, g("attention.out.weight"), g("attention.out.bias"), N, C, C);
        ops.attentionBackward(d.gathered, a.weights, a.qkv, d.qkv, B, T, C, H);
        ops.linearBackward(d.qkv, a.read1, w("attention.qkv.weight"), d.read, g("attention.qkv.weight"), g("attention.qkv.bias"), N, C, 3 * C);
        ops.layerNormBackward(d.read, a.normed1, a.scale1, w("attention_norm.weight"), d.x, g("attention_norm.weight"), g("attention_norm.bias"), N, C);
      }
      ops.embedBackward(d.x, tokens, G["embeddings.token.weight"], G["embeddings.position.weight"], N, T, C);
    }

    /** AdamW, as in src/transformer/optimizer.py. Every weight moves by the rate times m / sqrt(v): its mean gradient,
     *  measured in units of its own usual size. Matrices also shrink a little. Returns the norm of the gradient before clipping. */
    step(rate) {
      const { beta1, beta2, eps, decay, clip } = ADAMW;
      const { gradient, mean, meanSquare, all } = this;
      this.steps += 1;
      const norm = Math.sqrt(gradient.reduce((total, g) => total + g * g, 0));
      const scale = norm > clip ? clip / norm : 1;
      const [first, second] = [1 - beta1 ** this.steps, 1 - beta2 ** this.steps]; // both means begin at 0
      let i = 0;
      for (const [name, weight] of Object.entries(this.weights)) {
        const kept = 1 - rate * (this.shapes[name].length === 2 ? decay : 0);
        for (const end = i + weight.length; i < end; i += 1) {
          const g = gradient[i] * scale;
          mean[i] += (1 - beta1) * (g - mean[i]);
          meanSquare[i] += (1 - beta2) * (g * g - meanSquare[i]);
          all[i] = kept * all[i] - (rate * (mean[i] / first)) / (Math.sqrt(meanSquare[i] / second) + eps);
        }
      }
      return norm;
    }

    /** The probabilities of the next token (V) after these tokens, of which the last max_seq_len are read. Logits are divided
     *  by the temperature. What stands after the last token is never read: attention is causal. */
    next(tokens, temperature = 1) {
      const { vocab_size: V, max_seq_len: longest } = this.config;
      const read = tokens.slice(-longest);
      const row = Int32Array.from({ length: longest }, (_, t) => (t < read.length ? read[t] : 0));
      const logits = this.forward(row, 1).slice((read.length - 1) * V, read.length * V).map((logit) => logit / temperature);
      ops.crossEntropy(logits, [0], 1, V); // leaves probabilities
      return logits;
    }
  }

  function sum(y, a, b) {
    for (let i = 0; i < y.length; i += 1) y[i] = a[i] + b[i];
  }

  /** A random number with mean 0 and standard deviation 1: the Box-Muller transform of two uniform ones. */
  const normal = (random) => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());

  GPT.network = (config, random) => new Network(config, random);
});
