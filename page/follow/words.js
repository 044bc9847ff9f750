// Follow one number: the pieces of sentences and formulas.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html } = GPT.draw;
  const { write } = GPT.follow;

  /** A symbol of a formula in the colour of its kind: q, k, v or x. */
  const symbol = (kind, name, below = null) =>
    html(
      "var",
      { class: kind, "data-term": { q: "query", k: "key", v: "value", x: "stream" }[kind] },
      name,
      below !== null && html("sub", {}, String(below)),
    );

  /** A matrix of weights in a sentence or formula: W with a small name. */
  const matrix = (name, kind = null) => html("var", { class: kind }, "W", html("sub", {}, name));

  /** The followed number in a sentence or formula. */
  const ours = (value) => html("b", { class: "follow-ours" }, typeof value === "number" ? write(value) : value);

  /** A number in a formula after a sign: in brackets if it is negative. */
  const bracket = (value) =>
    value < 0 && Number(write(value).replace("−", "-")) < 0 ? `(${write(value)})` : write(value);

  Object.assign(GPT.follow, { symbol, matrix, ours, bracket });
})();
