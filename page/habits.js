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

  const plans = new WeakMap(); // a text's ids -> what planOf found: the same for all heads

  /** The keys of each habit { name, even, queries: [[t, keys], ...] }; habits without any are left out. */
  function planOf(ids) {
    return Object.entries(KEYS).flatMap(([name, keysOf]) => {
      const queries = Array.from(ids, (_, t) => [t, keysOf(ids, t)]).filter(([, keys]) => keys.length);
      const even = queries.reduce((sum, [t, keys]) => sum + keys.length / (t + 1), 0) / queries.length;
      return queries.length ? [{ name, even, queries }] : [];
    });
  }

  /** For each habit { name, score, even }, means over the queries that have such a key; habits without one are left out.
   *  weights: the attention weights (T, T) of a head, row by row. */
  GPT.habits = (weights, ids) => {
    const T = ids.length;
    if (!plans.has(ids)) plans.set(ids, planOf(ids));
    return plans.get(ids).map(({ name, even, queries }) => {
      let score = 0;
      for (const [t, keys] of queries) for (const s of keys) score += weights[t * T + s];
      return { name, score: score / queries.length, even };
    });
  };
})();
