// Choosing the next token: the steps of src/transformer/sampling.py, in the same order, with the result of each.
//
//   logits -> repetition penalty -> temperature -> top-k -> top-p -> min-p -> probabilities -> a draw
//
// A step takes logits (V) and returns new ones; a token that it excludes gets -Infinity, so that its probability is 0.

var GPT = GPT || {};
GPT.engine("sampling", (GPT) => {
  "use strict";
  const { tensor, softmax } = GPT.maths;

  /** Applies a function of the logit and its id to each logit: (V) -> (V). */
  function map(logits, change) {
    const changed = tensor(logits.length);
    for (let id = 0; id < logits.length; id += 1) changed[id] = change(logits[id], id);
    return changed;
  }

  /** Ids in descending order of their logits; equal ones by id. */
  function ranked(logits) {
    const ids = Uint32Array.from(logits, (_, id) => id);
    return ids.sort((a, b) => (logits[a] === logits[b] ? a - b : logits[b] - logits[a]));
  }

  /** Lowers the logits of tokens that already occur: divides positive ones by the penalty, multiplies others by it. */
  function repetitionPenalty(logits, penalty, seen) {
    const old = new Set(seen);
    return map(logits, (logit, id) => (old.has(id) ? (logit > 0 ? logit / penalty : logit * penalty) : logit));
  }

  /** Logits over t: below 1 the likely tokens gain, above 1 the differences shrink. At 0 only the most likely is left. */
  function temperature(logits, t) {
    if (t > 0) return map(logits, (logit) => logit / t);
    const best = ranked(logits)[0];
    return map(logits, (_, id) => (id === best ? 0 : -Infinity));
  }

  /** Keeps the k largest logits, and all that are equal to the k-th. */
  function topK(logits, k) {
    const smallest = logits[ranked(logits)[Math.min(k, logits.length) - 1]];
    return map(logits, (logit) => (logit < smallest ? -Infinity : logit));
  }

  /** Keeps the fewest largest logits whose probabilities add up to at least p, and all that are equal to the last one. */
  function topP(logits, p) {
    if (p >= 1) return logits;
    const probs = softmax(logits);
    let sum = 0;
    const last = ranked(logits).find((id) => (sum += probs[id]) >= p);
    return last === undefined ? logits : map(logits, (logit) => (logit < logits[last] ? -Infinity : logit));
  }

  /** Keeps the tokens that are at least p times as likely as the most likely one. */
  function minP(logits, p) {
    if (p <= 0) return logits;
    const smallest = logits.reduce((a, b) => Math.max(a, b), -Infinity) + Math.log(p);
    return map(logits, (logit) => (logit < smallest ? -Infinity : logit));
  }

  /** The settings that change nothing. topK Infinity keeps all; `seen` holds the tokens of the text so far. */
  const OFF = { repetitionPenalty: 1, temperature: 1, topK: Infinity, topP: 1, minP: 0, seen: [] };

  /** The probabilities after each step: [{ name, probs, isOn }], "model" first, then the steps in order, on or off. */
  function stages(logits, settings = {}) {
    const chosen = { ...OFF, ...settings };
    const steps = {
      repetitionPenalty: (before) => repetitionPenalty(before, chosen.repetitionPenalty, chosen.seen),
      temperature: (before) => temperature(before, chosen.temperature),
      topK: (before) => topK(before, chosen.topK),
      topP: (before) => topP(before, chosen.topP),
      minP: (before) => minP(before, chosen.minP),
    };
    const found = [{ name: "model", probs: softmax(logits), isOn: true }];
    let now = logits;
    for (const [name, step] of Object.entries(steps)) {
      const isOn = chosen[name] !== OFF[name];
      if (isOn) now = step(now);
      found.push({ name, probs: isOn ? softmax(now) : found[found.length - 1].probs, isOn });
    }
    return found;
  }

  /** The id that a uniform number in [0, 1) selects: each id covers an interval as wide as its probability. */
  function draw(probs, uniform) {
    let last = 0;
    let end = 0;
    for (let id = 0; id < probs.length; id += 1) {
      if (probs[id] === 0) continue;
      last = id;
      end += probs[id];
      if (uniform < end) return id;
    }
    return last; // rounding left a gap before 1
  }

  /** A function that returns uniform numbers in [0, 1), the same ones for the same seed: "mulberry32", a hashed counter.
   *  It is good enough to draw tokens, but not for cryptography. */
  function rng(seed) {
    let counter = seed >>> 0;
    return () => {
      counter = (counter + 0x6d2b79f5) >>> 0;
      let bits = Math.imul(counter ^ (counter >>> 15), counter | 1);
      bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
      return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  GPT.sampling = { softmax, repetitionPenalty, temperature, topK, topP, minP, stages, draw, rng };
});
