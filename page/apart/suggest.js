// A second text that differs from the first in one word: "The queen is dead" for "The king is dead".

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

  /** Cut at the words: what stands between them, and each word, in turn. */
  const cut = (text) => text.split(/(\p{L}[\p{L}\p{M}'’]*)/u);

  /** Whether two texts differ in one word, and in nothing else. */
  function isOneWord(text, other) {
    const [parts, others] = [cut(text), cut(other)];
    const differing = parts.flatMap((part, i) => (part === others[i] ? [] : [i]));
    return parts.length === others.length && differing.length === 1 && differing[0] % 2 === 1;
  }

  /** A text with as many tokens as `text`, all but one word the same; "" if none is found. */
  function otherText(model, text, pieces) {
    const fits = (other) =>
      isOneWord(text, other) && model.tokenizer.encode(other).slice(-model.config.max_seq_len).length === pieces.length;
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

  /** Replaces a word that is one token, if possible in the first half, by one whose row points in the most similar direction. */
  function withAnotherToken(model, pieces, fits) {
    const isWord = (text) => /^ ?\p{L}+$/u.test(text);
    const isAnother = (one, other) => isWord(other) && (one[0] === " ") === (other[0] === " ") && one.toLowerCase() !== other.toLowerCase();
    const order = [...pieces.keys()].filter((t) => isWord(pieces[t].text) && isWhole(pieces, t));
    const middle = (pieces.length - 1) / 3;
    order.sort((a, b) => Math.abs(a - middle) - Math.abs(b - middle));
    for (const t of order.slice(0, 4)) {
      for (const id of nearest(model, pieces[t].id)) {
        const ids = pieces.map((piece, at) => (at === t ? id : piece.id));
        const other = model.tokenizer.decode(ids);
        if (isAnother(pieces[t].text, model.tokenizer.decode([id])) && fits(other)) return other;
      }
    }
    return "";
  }

  /** Whether a token is a word, and not a part of one. */
  const isWhole = (pieces, t) =>
    (pieces[t].text[0] === " " || !/\p{L}$/u.test(pieces[t - 1]?.text || "")) && !/^[\p{L}'’]/u.test(pieces[t + 1]?.text || "");

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

  GPT.suggest = { otherText, isOneWord };
})();
