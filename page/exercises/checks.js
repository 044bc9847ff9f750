// The checks of the exercises: each measures the reader's text, token or head, and says what it found.

var GPT = GPT || {};
(() => {
  "use strict";
  const { percent, chip, best, row } = GPT.draw;

  const SURE = 0.9;
  const MOST = 0.5;

  /** Whether the chosen head has a habit on the reader's text, clearly above an even head. */
  function hasHabit(name, what) {
    return (state) => {
      const { layer, head, trace, tokens } = state;
      const found = GPT.habits(row(trace.layers[layer].weights, head, trace.T ** 2), tokens).find((habit) => habit.name === name);
      if (!found) return { done: false, isMeasured: false, words: "It cannot be measured on this text: a token has to come up twice, and more after it." };
      const done = GPT.isClear(found);
      return {
        done,
        isMeasured: true,
        words: `Head ${head + 1} of layer ${layer + 1} gives ${percent(found.score)} of its attention to ${what}, an even head ${percent(found.even)}: ${done ? "clearly more" : "not clearly more"}.`,
      };
    };
  }

  /** First an induction head is to be found, then a text in which that head has nothing to copy. */
  function withNothingToCopy() {
    const measure = hasHabit("induction", "tokens that followed an earlier copy");
    let known = null; // the induction head that was chosen
    return (state) => {
      const { layer, head, trace, pieces } = state;
      const found = measure(state);
      if (found.done) known = `${layer} ${head}`;
      if (found.done) return { done: false, words: `${found.words} Now write a text in which no token comes up twice.` };
      if (found.isMeasured || known !== `${layer} ${head}`) return found;
      const own = row(trace.layers[layer].weights, head * trace.T + trace.T - 1, trace.T);
      const most = best(own, 1)[0];
      const words = ["Nothing to copy. ", chip(pieces.at(-1)), `, the last token, now gives ${percent(own[most])} of its attention in this head to `];
      return { done: true, words: [...words, most === trace.T - 1 ? "itself." : chip(pieces[most]), most === 0 ? ", the first token." : ""] };
    };
  }

  GPT.exercise("one-back", hasHabit("previous token", "the token before"));
  GPT.exercise("induction", withNothingToCopy());

  GPT.exercise("sure", (state) => {
    const next = state.next(state.tokens.length - 1);
    const likeliest = best(next, 1)[0];
    return {
      done: next[likeliest] > SURE,
      words: ["After your text, the likeliest token is ", chip(GPT.app.piece(likeliest)), `, with ${percent(next[likeliest])}.`],
    };
  });

  GPT.exercise("at-the-first", (state) => {
    const { layer, head, token, trace, pieces } = state;
    const weight = trace.layers[layer].weights[(head * trace.T + token) * trace.T];
    const words = ["In head ", `${head + 1} of layer ${layer + 1}, `, chip(pieces[token]), ` gives ${percent(weight)} to the first token.`];
    if (token < 3) words.push(" Choose a token with at least three before it.");
    return { done: token >= 3 && weight > MOST, words };
  });
})();
