// Habits of attention heads, as in src/transformer/interpret/heads.py: the attention that a head gives to certain keys, and
// what a head that attends to all tokens evenly would give them.

var GPT = GPT || {};
(() => {
  "use strict";

  /** By name: the keys that belong to the query at position t of a text of token ids. */
  const KEYS = {
    "previous token": (ids, t) => (t > 0 ? [t - 1] : []),
    "first token": (ids, t) => (t > 0 ? [0] : []),
    "duplicate token": (ids, t) => copies(ids, t),
    induction: (ids, t) => copies(ids, t).flatMap((s) => (s + 1 < t ? [s + 1] : [])),
  };

  /** The earlier positions of the token at t. */
  function copies(ids, t) {
    const found = [];
    for (let s = 0; s < t; s += 1) if (ids[s] === ids[t]) found.push(s);
    return found;
  }

  /** For each habit { name, score, even }, means over the queries that have such a key; habits without one are left out.
   *  weights: the attention weights (T, T) of a head, row by row. */
  GPT.habits = (weights, ids) => {
    const T = ids.length;
    return Object.entries(KEYS).flatMap(([name, keysOf]) => {
      let [score, even, queries] = [0, 0, 0];
      for (let t = 0; t < T; t += 1) {
        const keys = keysOf(ids, t);
        if (!keys.length) continue;
        queries += 1;
        even += keys.length / (t + 1);
        for (const s of keys) score += weights[t * T + s];
      }
      return queries ? [{ name, score: score / queries, even: even / queries }] : [];
    });
  };
})();
