// Activation patching, as in src/transformer/interpret/patching.py: a text is read once more, with one vector of another text
// in the place of its own. How far does the answer move towards the other text's answer?
//
//   effect = (answer with the patch - answer) / (answer of the other text - answer)        0: not at all, 1: all the way
//
// The answer is one number: the logit of a token that the text favours, minus that of a token that the other text favours.

var GPT = GPT || {};
GPT.engine("patching", (GPT) => {
  "use strict";

  /** The number of tokens at the start that are the same in both texts: nothing differs there. */
  function commonStart(tokens, other) {
    const first = tokens.findIndex((token, t) => token !== other[t]);
    return first < 0 ? tokens.length : first;
  }

  /** The two tokens to compare, [favoured by p, favoured by q], from logarithms of probabilities (V). Each is the token that
   *  contributes most to the divergence of the two distributions: likely, and much less likely after the other text. */
  function favourites(p, q) {
    const most = (a, b) => {
      let [best, found] = [-Infinity, 0];
      for (let id = 0; id < a.length; id += 1) {
        const share = Math.exp(a[id]) * (a[id] - b[id]);
        if (share > best) [best, found] = [share, id];
      }
      return found;
    };
    return [most(p, q), most(q, p)];
  }

  /** A run from token t on, with the other text's vector at t in the stream before layer `row` (after the last one: L). Both
   *  texts' traces are given; the cache holds the keys and values of the tokens before t. Returns the trace of T - t tokens. */
  function patched(model, [own, source], cache, row, t) {
    const { streamOf, later } = GPT.ablation;
    const C = model.config.d_model;
    const stream = GPT.maths.withShape(streamOf(own, row).slice(t * C), [own.T - t, C]);
    stream.set(streamOf(source, row).subarray(t * C, (t + 1) * C));
    const before = { ...cache, length: t, keys: cache.keys.slice(row), values: cache.values.slice(row) };
    return later(model, row, stream).advance(own.tokens.slice(t), before);
  }

  /** A job: every cell, from the last token to the first that differs. The first result is { ends }: the two tokens, and the
   *  answers and the log-probabilities (V) of both texts; the others are { row, t, effect }. */
  function* cells(model, { tokens, other }) {
    const T = tokens.length;
    const cache = model.start(T);
    const traces = [model.advance(tokens, cache), model.run(other)];
    const logits = traces.map((trace) => trace.logits(T - 1));
    const probs = logits.map(GPT.ablation.logProbs);
    const [a, b] = favourites(...probs);
    const answers = logits.map((z) => z[a] - z[b]);
    yield { ends: { tokens: [a, b], answers, logProbs: probs } };
    if (answers[0] === answers[1]) return;
    for (let t = T - 1; t >= commonStart(tokens, other); t -= 1) {
      for (let row = 0; row <= model.config.num_layers; row += 1) {
        const found = patched(model, traces, cache, row, t).logits(T - 1 - t); // changes the cache from t on only
        const effect = (found[a] - found[b] - answers[0]) / (answers[1] - answers[0]);
        yield { row, t, effect };
      }
    }
  }

  /** A job: the log-probabilities (V) of the next token with one patch. */
  function* cell(model, { tokens, other, row, t }) {
    const [T, cache] = [tokens.length, model.start(tokens.length)];
    const traces = [model.advance(tokens, cache), model.run(other)];
    yield GPT.ablation.logProbs(patched(model, traces, cache, row, t).logits(T - 1 - t));
  }

  GPT.patching = { commonStart, favourites, cells, cell };
});
