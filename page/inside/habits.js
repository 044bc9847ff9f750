// The habits of all heads, each beside the score of a head that attends to all tokens evenly.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, percent } = GPT.draw;
  const { report, set, headName } = GPT.inside;
  const NAMED = 3;

  GPT.picture("habits", {
    mount(element) {
      const { measured } = report.habits;
      const kinds = report.habits.kinds.filter(({ even }) => even !== null);
      document.getElementById("measured").textContent = measured;
      this.maps = kinds.map(({ name, scores, errors, even }) =>
        GPT.parts.headMap(name, {
          paint: (cell, layer, head) => GPT.parts.heat(cell, Math.max(0, scores[layer][head] - even), 1 - even),
          describe: (layer, head) => words(scores[layer][head], errors && errors[layer][head], even),
        }),
      );
      element.append(
        html("div", { class: "habits" }, kinds.map((kind, i) =>
          html("section", {}, html("h4", {}, kind.name), html("p", { class: "note" }, kind.meaning), this.maps[i].element, strongest(kind)))),
      );
    },

    update(state) {
      this.maps.forEach((map) => map.show(state));
    },
  });

  const words = (score, error, even) =>
    `${percent(score)}${error === null || error === undefined ? "" : ` ± ${percent(error)}`}; even ${percent(even)}`;

  /** The heads with the largest scores, on a scale with a mark for the even head. */
  function strongest({ name, scores, errors, even }) {
    const all = scores.flatMap((row, layer) => row.map((score, head) => ({ layer, head, score, error: errors && errors[layer][head] })));
    const best = all.sort((a, b) => b.score - a.score).slice(0, NAMED);
    return html("ol", { class: "even", "aria-label": `Strongest heads: ${name}` }, best.map(({ layer, head, score, error }) =>
      html("li", {}, html("button", { type: "button", onclick: () => set({ layer, head }) },
        html("span", { class: "even-label" }, headName(layer, head)),
        html("span", { class: "even-track", "aria-hidden": "true" },
          html("span", { class: "even-bar", style: `width: ${100 * score}%` }),
          html("span", { class: "even-mark", style: `left: ${100 * even}%` })),
        html("span", { class: "even-value" }, words(score, error, even))))));
  }
})();
