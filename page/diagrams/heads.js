// Step 3: the heads of one layer, and the attention weights of the chosen token in each.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, best, chip, count, percent, paint, palette, row, visible } = GPT.draw;

  GPT.diagram("heads", {
    mount(element, model) {
      this.layers = GPT.parts.layerChoice(model);
      this.heads = html("div", { class: "heads" });
      element.append(html("div", { class: "controls" }, this.layers.element), this.heads);
    },

    update(state) {
      const { pieces, token, layer, head, trace } = state;
      this.layers.show(state);
      const { weights } = trace.layers[layer];
      const [T, colours] = [trace.T, palette()];
      const focused = Array.from(this.heads.children).findIndex((card) => card.contains(document.activeElement));
      const strongest = [];
      this.heads.replaceChildren(
        ...Array.from({ length: weights.shape[0] }, (_, h) => {
          const map = row(weights, h, T * T);
          const own = row(map, token, T); // the weights of the chosen token
          strongest.push(best(own, 1)[0]);
          return this.card({ h, map, own, pieces, token, isChosen: h === head, T, colours });
        }),
      );
      if (focused >= 0) this.heads.children[focused].querySelector("button").focus({ preventScroll: true });
      const targets = new Set(strongest).size;
      return [
        `In layer ${layer + 1}, the ${count(strongest.length)} heads of `,
        chip(pieces[token]),
        targets === 1 ? " all attend most to the same token." : ` attend most to ${targets} different tokens.`,
      ];
    },

    card({ h, map, own, pieces, token, isChosen, T, colours }) {
      const canvas = html("canvas", {
        class: "small-map",
        role: "img",
        "aria-label": `Head ${h + 1}, the whole matrix: ${habit(map, T)}`,
      });
      paint(canvas, map.map(Math.sqrt), T, 1, colours);
      const most = best(own, 1)[0];
      return html(
        "article",
        { class: isChosen && "is-chosen" },
        html(
          "div",
          {},
          canvas,
          html(
            "button",
            {
              type: "button",
              class: "action",
              "aria-pressed": String(isChosen),
              onclick: () => GPT.app.set({ head: h, key: null }),
            },
            `Head ${h + 1}`,
          ),
        ),
        html(
          "div",
          {},
          html(
            "p",
            { class: "shaded" },
            pieces
              .slice(0, token + 1)
              .map((piece, s) =>
                html(
                  "span",
                  {
                    class: "token",
                    style: `--strength: ${Math.round(100 * Math.sqrt(own[s]))}%`,
                    title: percent(own[s]),
                  },
                  visible(piece, 24),
                ),
              ),
          ),
          html(
            "p",
            { class: "note" },
            "Attends most to ",
            most === token ? "itself" : chip(pieces[most]),
            ` (${percent(own[most])}). Over the whole text: ${habit(map, T)}.`,
          ),
        ),
      );
    },
  });

  /** The weight on the token itself, the previous and the first one, averaged over all tokens but the first. */
  function habit(map, T) {
    if (T === 1) return "one token, which can only attend to itself";
    const mean = (column) =>
      Array.from({ length: T - 1 }, (_, i) => map[(i + 1) * T + column(i + 1)]).reduce((a, b) => a + b, 0) / (T - 1);
    return `${percent(mean((t) => t))} on itself, ${percent(mean((t) => t - 1))} on the previous token, ${percent(mean(() => 0))} on the first token`;
  }
})();
