// All heads of the model by habit: one map for each habit, layers by heads, shaded by how far the score on the reader's text
// is above that of a head that attends evenly. Press a head to choose it for the whole page.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, percent, row } = GPT.draw;

  const MEANINGS = {
    "previous token": "the token just before",
    "first token": "the first token of the text",
    "duplicate token": "earlier copies of the same token",
    induction: "the token after an earlier copy",
  };
  const CLEAR = 0.2; // a score this far above an even head's is called clear

  /** The scores of all heads on a text: by habit, { name, even, scores: [layer][head], best: { layer, head, score } }. */
  GPT.headHabits = (trace, ids) => {
    const found = trace.layers.map(({ weights }) =>
      Array.from({ length: weights.shape[0] }, (_, h) => GPT.habits(row(weights, h, trace.T ** 2), ids)));
    return found[0][0].map(({ name, even }, i) => {
      const scores = found.map((layer) => layer.map((habits) => habits[i].score));
      const all = scores.flatMap((heads, layer) => heads.map((score, head) => ({ layer, head, score })));
      return { name, even, scores, best: all.reduce((a, b) => (b.score > a.score ? b : a)) };
    });
  };

  /** Whether a score is clearly above that of an even head. */
  GPT.isClear = ({ score, even }) => score - even >= CLEAR;

  GPT.diagram("habits", {
    mount(element) {
      this.box = html("div", { class: "habit-maps" });
      element.append(this.box);
    },

    update(state) {
      const held = document.activeElement;
      const kept = this.box.contains(held) ? [held.dataset.habit, held.dataset.layer, held.dataset.head] : null;
      const habits = GPT.headHabits(state.trace, state.tokens);
      this.box.replaceChildren(...habits.map((habit) => this.map(habit, state)));
      if (kept) {
        const [name, layer, head] = kept;
        const same = `[data-habit="${name}"][data-layer="${layer}"][data-head="${head}"]`;
        this.box.querySelector(same)?.focus({ preventScroll: true });
      }
      return this.sentence(habits);
    },

    map(habit, state) {
      const { name, even, scores, best } = habit;
      const cells = scores.flatMap((heads, layer) => heads.map((score, head) => this.cell(habit, score, layer, head, state)));
      const grid = html(
        "div",
        { class: "habit-cells", role: "group", "aria-label": `Heads by ${name}`, style: `--heads: ${scores[0].length}` },
        html("span", {}),
        scores[0].map((_, head) => html("small", { "aria-hidden": "true" }, `${head + 1}`)),
        scores.flatMap((heads, layer) => [
          html("small", { "aria-hidden": "true" }, `${layer + 1}`),
          ...cells.slice(layer * heads.length, (layer + 1) * heads.length),
        ]),
      );
      GPT.parts.roving(grid, () => cells, () => {});
      return html(
        "section",
        { class: "habit-map" },
        html("h4", {}, name),
        html("p", { class: "note" }, `${MEANINGS[name]}; even head ${percent(even)}`),
        html("div", { class: "scroll" }, grid),
        html("p", { class: "note" }, `Strongest: layer ${best.layer + 1}, head ${best.head + 1}, `, html("b", {}, percent(best.score))),
      );
    },

    cell({ name, even, best }, score, layer, head, state) {
      const isChosen = layer === state.layer && head === state.head;
      const isBest = layer === best.layer && head === best.head;
      const words = `Layer ${layer + 1}, head ${head + 1}: ${percent(score)} on ${MEANINGS[name]}, an even head ${percent(even)}`;
      return html(
        "button",
        {
          type: "button",
          class: `habit-cell${isBest ? " is-best" : ""}`,
          style: `--strength: ${Math.round(100 * Math.max(0, (score - even) / (1 - even)))}%`,
          "aria-pressed": String(isChosen),
          "aria-label": words,
          title: words,
          tabindex: isChosen ? 0 : -1,
          "data-habit": name,
          "data-layer": layer,
          "data-head": head,
          onclick: () => GPT.app.set({ layer, head, key: null }),
        },
        `${Math.round(100 * score)}`,
      );
    },

    sentence(habits) {
      const clear = habits.filter(({ even, best }) => GPT.isClear({ score: best.score, even }));
      if (!habits.length) return "One token can only attend to itself.";
      if (!clear.length) return "On this text no head has one of these habits clearly: the strongest scores are close to those of an even head.";
      const named = clear.map(({ name, best }) => `${name} in head ${best.head + 1} of layer ${best.layer + 1}`);
      const missing = habits.some(({ name }) => name === "induction") ? "" : " No token comes up twice in it, so induction cannot be measured.";
      return `Clear on this text: ${GPT.draw.list(named)}.${missing}`;
    },
  });
})();
