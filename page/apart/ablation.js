// Switching parts of the model off, as in src/transformer/interpret/ablation.py: a part's output is replaced by zeros, or by
// its mean over the tokens of the text.
//
//   const off = new Set(["1.head.0", "2.feedforward"]);             keys of parts: see parts
//   const trace = GPT.ablation.without(model, tokens, off, "zero", model.run(tokens));
//
// The keys: positions, norm (the last one), and for layer N: N.block, N.norm1, N.head.H, N.attention, N.norm2, N.feedforward.
// A norm that is off passes the stream on as it is. A block that is off adds nothing: it has no attention and no feed-forward.

var GPT = GPT || {};
GPT.engine("ablation", (GPT) => {
  "use strict";

  /** The keys of all parts of a model, in the order of computation. */
  function parts({ num_layers, num_heads }) {
    const layers = Array.from({ length: num_layers }, (_, layer) => {
      const heads = Array.from({ length: num_heads }, (_, head) => `head.${head}`);
      return ["block", "norm1", ...heads, "attention", "norm2", "feedforward"].map((part) => `${layer}.${part}`);
    });
    return ["positions", ...layers.flat(), "norm"];
  }

  /** The trace of a run in which the parts of the set `off` are replaced, by "zero" or "mean"; clean: the trace with all on.
   *  If all of them are in later layers, the run begins with the first layer that changes. */
  function without(model, tokens, off, by, clean) {
    if (off.has("positions")) {
      return withoutPositions(model, by, tokens.length).run(tokens, replacements(model, off, by, clean, 0));
    }
    const L = model.config.num_layers;
    const first = Math.min(L, ...Array.from(off, (key) => (key === "norm" ? L : parseInt(key, 10))));
    return later(model, first, streamOf(clean, first)).run(tokens, replacements(model, off, by, clean, first));
  }

  /** The residual stream before layer `row`, or after the last one, (T, C). */
  const streamOf = ({ layers }, row) => (row < layers.length ? layers[row].input : layers[row - 1].output);

  /** The model from layer `first` on, which begins with this stream (T, C) in the place of embeddings. */
  function later(model, first, stream) {
    const other = Object.create(model);
    return Object.assign(other, { layers: model.layers.slice(first), embed: () => ({ embedded: stream }) });
  }

  /** The edit of the forward pass, from layer `first` on, that switches these parts off. */
  function replacements(model, off, by, clean, first) {
    const zero = () => 0;
    const standIn = (values) => (by === "mean" ? meanOfColumns(values) : zero);
    return (name, values, trace) => {
      const L = trace.layers.length;
      if (name === "final_norm") return off.has("norm") && (L ? trace.layers[L - 1].output : trace.embedded);
      const [, at, part] = /^blocks\.(\d+)\.(.+)$/.exec(name) || [];
      const layer = first + Number(at);
      const isOff = (key) => off.has(`${layer}.${key}`);
      const [found, whole] = [trace.layers[at], clean.layers[layer]];
      if (part === "attention_norm") return isOff("norm1") && found.input;
      if (part === "feedforward_norm") return isOff("norm2") && found.afterAttention;
      if (part === "attention.output" && (isOff("attention") || isOff("block"))) {
        return replaced(values, standIn(whole.attentionOut), () => true);
      }
      if (part === "feedforward.output" && (isOff("feedforward") || isOff("block"))) {
        return replaced(values, standIn(whole.feedForwardOut), () => true);
      }
      if (part !== "attention.heads") return null;
      const isColumnOff = (column) => isOff(`head.${Math.floor(column / model.headDim)}`);
      return replaced(values, standIn(whole.gathered), isColumnOff);
    };
  }

  /** A copy of values (T, C): the columns that are off have standIn(column) in every row. */
  function replaced(values, standIn, isColumnOff) {
    const C = values.shape[1];
    const copy = values.slice();
    for (let column = 0; column < C; column += 1) {
      if (!isColumnOff(column)) continue;
      const number = standIn(column);
      for (let i = column; i < copy.length; i += C) copy[i] = number;
    }
    return copy;
  }

  /** The mean of each column of values (T, C), over the tokens. */
  function meanOfColumns(values) {
    const [T, C] = values.shape;
    const sums = new Float64Array(C);
    for (let i = 0; i < values.length; i += 1) sums[i % C] += values[i];
    return (column) => sums[column] / T;
  }

  /** The model without positions: nothing is added, rotated or subtracted for them. With "mean", a table that is added has
   *  the mean of its first T rows in each row. */
  function withoutPositions(model, by, T) {
    const other = Object.create(model);
    other.config = { ...model.config, position: "none" };
    other.slopes = null;
    const table = model.positionTable;
    if (!table || by !== "mean") return Object.assign(other, { positionTable: null });
    const C = model.config.d_model;
    const mean = meanOfColumns(GPT.maths.withShape(table.slice(0, T * C), [T, C]));
    const constant = table.map((_, i) => mean(i % C));
    return Object.assign(other, { positionTable: GPT.maths.withShape(constant, table.shape) });
  }

  /** Natural logarithms of the probabilities that belong to logits (V). */
  function logProbs(logits) {
    let most = -Infinity;
    for (const z of logits) most = Math.max(most, z);
    let sum = 0;
    for (const z of logits) sum += Math.exp(z - most);
    const log = most + Math.log(sum);
    return Float32Array.from(logits, (z) => z - log);
  }

  /** The loss of each token but the first, in nats: -log of the probability that it had, (T - 1). */
  function losses(trace) {
    return Float32Array.from(trace.tokens.slice(1), (token, t) => -logProbs(trace.logits(t))[token]);
  }

  /** A job: one run without the parts `off`. Gives the losses with all parts, and those without and logProbs (V) after `at`. */
  function* run(model, { tokens, off, by, at }) {
    const clean = model.run(tokens);
    const trace = without(model, tokens, new Set(off), by, clean);
    yield { before: losses(clean), after: { logProbs: logProbs(trace.logits(at)), losses: losses(trace) } };
  }

  /** A job: each part alone is switched off. Gives, part by part, { key, answer, loss }: by how many nats the answer after
   *  token `at` becomes less likely, and by how many the mean loss of the text rises. */
  function* effects(model, { tokens, by, at, answer }) {
    const clean = model.run(tokens);
    const mean = (all) => (all.length ? all.reduce((sum, loss) => sum + loss, 0) / all.length : 0);
    const [logProb, loss] = [logProbs(clean.logits(at))[answer], mean(losses(clean))];
    for (const key of parts(model.config)) {
      const trace = without(model, tokens, new Set([key]), by, clean);
      yield { key, answer: logProb - logProbs(trace.logits(at))[answer], loss: mean(losses(trace)) - loss };
    }
  }

  GPT.ablation = { parts, without, streamOf, later, logProbs, losses, run, effects };
});
