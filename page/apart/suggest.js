// A second text that differs from the first in one token: "The queen is dead" for "The king is dead".

var GPT = GPT || {};
(() => {
  "use strict";
  const PAIRS = [
    ["king", "queen"], ["king", "duke"], ["king", "prince"], ["king", "lord"], ["king", "man"],
    ["King", "Queen"], ["KING", "QUEEN"], ["Romeo", "Juliet"], ["ROMEO", "JULIET"], ["man", "woman"],
    ["lord", "lady"], ["father", "mother"], ["son", "daughter"], ["brother", "sister"], ["boy", "girl"], ["sir", "madam"],
    ["day", "night"], ["morrow", "night"], ["love", "hate"], ["good", "bad"], ["life", "death"], ["he", "she"], ["his", "her"],
    ["him", "her"], ["thou", "he"], ["my", "your"], ["is", "was"], ["the", "a"],
  ];
  const TRIES = 40; // nearest tokens that are tried

  /** A text with as many tokens as `text`, all but one the same; "" if none is found. */
  function otherText(model, text, pieces) {
    const fits = (other) => {
      const ids = model.tokenizer.encode(other).slice(-model.config.max_seq_len);
      return other !== text && ids.length === pieces.length && ids.some((id, t) => id !== pieces[t].id);
    };
    for (const [one, two] of PAIRS) {
      for (const [from, to] of [[one, two], [two, one]]) {
        const last = [...text.matchAll(new RegExp(`(?<!\\p{L})${from}(?!\\p{L})`, "gu"))].pop(); // what follows may copy it
        if (!last) continue;
        const other = text.slice(0, last.index) + to + text.slice(last.index + from.length);
        if (fits(other)) return other;
      }
    }
    return withAnotherToken(model, pieces, fits);
  }

  /** Replaces a word in the first half by the token whose row points in the most similar direction. */
  function withAnotherToken(model, pieces, fits) {
    const order = [...pieces.keys()].filter((t) => /\p{L}/u.test(pieces[t].text));
    const middle = (pieces.length - 1) / 3;
    order.sort((a, b) => Math.abs(a - middle) - Math.abs(b - middle));
    for (const t of order.slice(0, 3)) {
      for (const id of nearest(model, pieces[t].id)) {
        const ids = pieces.map((piece, at) => (at === t ? id : piece.id));
        const other = model.tokenizer.decode(ids);
        if (/\p{L}/u.test(model.tokenizer.decode([id])) && fits(other)) return other;
      }
    }
    return "";
  }

  /** The tokens whose rows have the largest cosine with that of `id`. */
  function nearest(model, id) {
    const { tokenTable: table } = model;
    const C = table.shape[1];
    const row = GPT.draw.row(table, id);
    const cosines = Float32Array.from({ length: table.shape[0] }, (_, other) => {
      const length = Math.sqrt(GPT.maths.dot(table, other * C, table, other * C, C)) || 1;
      return other === id ? -Infinity : GPT.maths.dot(row, 0, table, other * C, C) / length;
    });
    return GPT.draw.best(cosines, TRIES);
  }

  GPT.suggest = { otherText };
})();
