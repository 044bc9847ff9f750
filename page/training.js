// The arithmetic of training: the learning rate of a step, the activation memory of a batch, and the gradient for the
// reader's own text.

var GPT = GPT || {};
(() => {
  "use strict";
  const { tensor } = GPT.maths;
  const FLOAT = 4; // bytes
  const TILED_FROM = 2048; // entries of a vocabulary: src/transformer/loss.py

  /** Python's round: a half is rounded to the even neighbour. */
  function round(value) {
    const down = Math.floor(value);
    const isHalf = value - down === 0.5;
    return isHalf ? down + (down % 2) : Math.round(value);
  }

  /** The learning rate of a step, counted from 0, as a fraction of the peak: lr_scale in src/transformer/scheduler.py. */
  function lrScale(step, total, settings) {
    const warmup = round(settings.warmup_fraction * total);
    if (step < warmup) return (step + 1) / warmup;
    if (settings.schedule === "constant") return 1;
    let fall = total - warmup;
    if (settings.schedule === "wsd") fall = Math.min(fall, Math.max(1, round(settings.decay_fraction * total)));
    const done = Math.min(1, Math.max(0, step - (total - fall) + 1) / Math.max(1, fall + 1));
    const fraction = settings.schedule === "cosine" ? (1 + Math.cos(Math.PI * done)) / 2 : 1 - done;
    return settings.min_lr_ratio + (1 - settings.min_lr_ratio) * fraction;
  }

  /** Bytes of activations that the forward pass keeps for the backward pass, for rows of `length` tokens, in 32 bits, with fused attention and without
   *  dropout: src/transformer/planning/cost.py on a CPU. */
  function activationBytes(config, rows, length) {
    const { d_model: C, num_heads: H, d_ff: F, num_layers: L } = config;
    const kv = config.kv_heads * config.head_dim;
    const norm = config.norm === "layernorm" ? C + 2 : 2 * C + 1;
    const attention = C + 2 * kv + (config.position === "rotary" ? C + kv : 0) + H;
    const hidden = ({ relu: 1, swiglu: 4 }[config.activation] || 2) * F;
    const block = 2 * norm + 2 * C + attention + C + hidden;
    const numbers = L * block + norm + (config.vocab_size < TILED_FROM ? C : 0); // a token
    const mask = config.position === "alibi" ? H * length * length : 0;
    const tables = config.position === "rotary" ? 2 * length * config.head_dim : 0; // cosines and sines
    return FLOAT * (rows * length * numbers + tables + mask);
  }

  const found = new WeakMap(); // logits -> { target, loss, gradient }: those of earlier tokens stay when a text grows

  /** The loss of each of the first `count` tokens, -ln p of the token that follows it, and the gradient of the loss with respect to a constant that
   *  is added to every final vector (in most models the last norm's bias): { losses: [count - 1], gradients: [count - 1] of (C) }.
   *
   *  By hand: logits are E f, so d(-ln p_target)/df = E^T (p - onehot(target)), and a constant that is added to f has the same gradient. */
  function lossGradients(model, trace, count = trace.T) {
    const each = Array.from({ length: count - 1 }, (_, t) => {
      const [logits, target] = [trace.logits(t), trace.tokens[t + 1]];
      if (found.get(logits)?.target !== target) found.set(logits, { target, ...lossGradient(model, logits, target) });
      return found.get(logits);
    });
    return { losses: each.map(({ loss }) => loss), gradients: each.map(({ gradient }) => gradient) };
  }

  function lossGradient(model, logits, target) {
    const { d_model: C, vocab_size: V } = model.config;
    const error = Float64Array.from(GPT.sampling.softmax(logits));
    const loss = -Math.log(error[target]);
    error[target] -= 1;
    const gradient = new Float64Array(C);
    for (let id = 0; id < V; id += 1) {
      const weight = error[id];
      if (Math.abs(weight) < 1e-12) continue;
      for (let c = 0; c < C; c += 1) gradient[c] += weight * model.head[id * C + c];
    }
    return { loss, gradient: Float32Array.from(gradient) };
  }

  /** The sum of vectors, each divided by a number, accumulated in 32 bits like a .grad: (C). */
  function accumulated(gradients, over) {
    const sum = tensor(gradients[0] ? gradients[0].length : 0);
    for (const gradient of gradients) for (let c = 0; c < sum.length; c += 1) sum[c] += gradient[c] / over;
    return sum;
  }

  /** The cosine of the angle between two vectors: 1 for the same direction. */
  function cosine(a, b) {
    let [ab, aa, bb] = [0, 0, 0];
    for (let i = 0; i < a.length; i += 1) { ab += a[i] * b[i]; aa += a[i] * a[i]; bb += b[i] * b[i]; }
    return ab / Math.sqrt(aa * bb || 1);
  }

  GPT.training = { lrScale, activationBytes, lossGradients, accumulated, cosine };
})();
