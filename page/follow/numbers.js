// Follow one number: all values on the way of one number of the residual stream, read from the model's trace.
//
// The number is coordinate c of the chosen token's vector. In the first block it takes part in many sums; this file
// chooses which of them to show: the query number in which it counts most, the head and the hidden number that change it
// most. Everything is read from the trace or computed again from its values and the weights.

var GPT = GPT || {};
GPT.follow = { stops: [] };
(() => {
  "use strict";
  const { row, best } = GPT.draw;

  /** The index from 0 to count - 1 with the largest absolute value of f(index). */
  function strongest(count, f) {
    let found = 0;
    for (let i = 1; i < count; i += 1) if (Math.abs(f(i)) > Math.abs(f(found))) found = i;
    return found;
  }

  const sum = (values) => values.reduce((all, x) => all + x, 0);

  /** Number by number: a times b. */
  const products = (a, b) => Array.from(a, (x, i) => x * b[i]);

  /** A number that matters at both ends: large after the first norm, and in the logit of the most likely next token. */
  GPT.follow.usual = (model, { trace, token }) => {
    const top = row(model.head, best(trace.logits(token), 1)[0]);
    const [first, final] = [row(trace.layers[0].normed1, token), row(trace.final, token)];
    return strongest(top.length, (i) => first[i] * final[i] * top[i]);
  };

  /** The whole story of number c (from 0) of the chosen token, in the order of the stops. */
  GPT.follow.story = (model, state, c) => {
    const { trace, token: t, pieces } = state;
    const [first, inside] = [model.layers[0], trace.layers[0]];
    const story = { model, c, t, pieces, T: trace.T, C: model.config.d_model, id: trace.tokens[t], trace };
    story.isLast = t === pieces.length - 1;
    story.tokenRow = row(trace.tokenVectors, t);
    story.positionRow = trace.positionVectors && row(trace.positionVectors, t);
    story.x = row(trace.embedded, t);
    story.norm1 = normParts(model, first, "attention_norm", story.x, row(inside.normed1, t));
    Object.assign(story, attention(story, first, inside), feedForward(story, first, inside));
    Object.assign(story, stream(story), output(story, state));
    return story;
  };

  /** The pieces of a norm: mean (0 for RMSNorm), deviation, weight and bias (or null), and its result. */
  function normParts(model, weights, name, x, result) {
    const isRms = model.config.norm === "rmsnorm";
    const mean = isRms ? 0 : sum(x) / x.length;
    const variance = x.reduce((all, value) => all + (value - mean) ** 2, 0) / x.length;
    const deviation = Math.sqrt(variance + model.config.norm_eps);
    return {
      isRms,
      x,
      mean,
      deviation,
      weight: weights[`${name}.weight`],
      bias: weights[`${name}.bias`] || null,
      result,
    };
  }

  /** Query, key, score, weight, value and output of the head that changes the number most, in the first block. */
  function attention({ model, c, t, T, norm1 }, weights, inside) {
    const { num_heads: H, kv_heads: K } = model.config;
    const D = model.headDim;
    const [qkv, bias] = [weights["attention.qkv.weight"], weights["attention.qkv.bias"]];
    const outRow = row(weights["attention.out.weight"], c); // (C)
    const gathered = row(inside.gathered, t); // (C)
    const outProducts = products(gathered, outRow);
    const headParts = Array.from({ length: H }, (_, h) => sum(outProducts.slice(h * D, (h + 1) * D)));
    const h = strongest(H, (head) => headParts[head]);
    const kv = Math.floor((h * K) / H);
    const d = strongest(D, (i) => qkv[(h * D + i) * qkv.shape[1] + c] * norm1.result[c]);
    const e = strongest(D, (i) => outProducts[h * D + i]);
    const queries = (from) => row(from, h * T + t, D);
    const keys = (from, s) => row(from, kv * T + s, D);
    const weightsOf = row(inside.weights, h * T + t, T);
    const s = best(weightsOf.subarray(0, t + 1), 1)[0];
    const before = inside.unrotated || inside;
    const slope = model.slopes ? model.slopes[h] : 0;
    const raw = row(inside.scores, h * T + t, T); // before the mask, and before ALiBi
    return {
      H,
      K,
      D,
      h,
      kv,
      d,
      e,
      s,
      slope,
      outRow,
      gathered,
      headParts,
      queryRow: row(qkv, h * D + d),
      queryMatrix: qkv.subarray(h * D * qkv.shape[1], (h + 1) * D * qkv.shape[1]),
      queryBias: bias ? bias[h * D + d] : null,
      queryBefore: queries(before.q),
      query: queries(inside.q),
      key: keys(inside.k, s),
      raw,
      scores: Array.from(raw.subarray(0, t + 1), (score, other) => score - slope * (t - other)),
      weights: weightsOf,
      value: (other) => keys(inside.v, other),
      head: gathered.subarray(h * D, (h + 1) * D),
      outBias: weights["attention.out.bias"] ? weights["attention.out.bias"][c] : null,
      attentionOut: row(inside.attentionOut, t),
      middle: row(inside.afterAttention, t),
    };
  }

  /** The hidden number of the feed-forward network that changes the number most, and the way there and back. */
  function feedForward({ model, c, t }, weights, inside) {
    const downRow = row(weights["feedforward.down.weight"], c); // (d_ff)
    const hidden = row(inside.hidden, t);
    const u = strongest(hidden.length, (i) => hidden[i] * downRow[i]);
    const isGated = Boolean(inside.gated);
    const name = isGated ? "feedforward.gate" : "feedforward.up";
    const bias = (of, i) => (weights[`${of}.bias`] ? weights[`${of}.bias`][i] : null);
    return {
      u,
      downRow,
      hidden,
      isGated,
      normed2: row(inside.normed2, t),
      upRow: row(weights[`${name}.weight`], u),
      upBias: bias(name, u),
      before: row(inside.preActivation, t)[u],
      bent: GPT.maths.activations[model.config.activation](row(inside.preActivation, t)[u]),
      gated: isGated ? row(inside.gated, t)[u] : null,
      downBias: bias("feedforward.down", c),
      feedForwardOut: row(inside.feedForwardOut, t),
      output: row(inside.output, t),
    };
  }

  /** The number in the stream: after the embedding, and after each part of each block. */
  function stream({ trace, c, t, x }) {
    const points = [{ name: "start", value: x[c], added: null, block: 0 }];
    trace.layers.forEach((inside, block) => {
      points.push({
        name: "attention",
        value: row(inside.afterAttention, t)[c],
        added: row(inside.attentionOut, t)[c],
        block,
      });
      points.push({
        name: "feed-forward",
        value: row(inside.output, t)[c],
        added: row(inside.feedForwardOut, t)[c],
        block,
      });
    });
    return { points };
  }

  /** The last norm, the logit of the most likely token, and its probability. */
  function output({ model, c, t, trace }, state) {
    const last = trace.layers[trace.layers.length - 1];
    const logits = trace.logits(t);
    const probs = state.next(t);
    const top = best(logits, 5);
    const final = row(trace.final, t);
    return {
      final,
      lastNorm: normParts(model, model.weights, "final_norm", row(last.output, t), final),
      logits,
      probs,
      top,
      winner: GPT.app.piece(top[0]),
      winnerRow: row(model.head, top[0]),
      without: GPT.sampling.softmax(model.toLogits(final.map((x, i) => (i === c ? 0 : x))))[top[0]],
      total: logits.reduce((all, x) => all + Math.exp(x - logits[top[0]]), 0),
    };
  }

  Object.assign(GPT.follow, { products, sum });
})();
