// The heads of one layer, and the attention weights of the chosen token in each.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, best, chip, count, percent, paint, palette, row, shade, shades, visible } = GPT.draw;

  GPT.diagram("heads", {
    mount(element, model) {
      this.layers = GPT.parts.layerChoice(model);
      this.heads = html("div", { class: "heads" });
      const why = html("p", { class: "note" }, "Each habit is averaged only over the tokens at which it is possible, and one token can belong to several habits. So the percentages of a head need not add up to 100%.");
      element.append(html("div", { class: "controls" }, this.layers.element), why, this.heads);
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
          return this.card({ h, map, own, pieces, ids: state.tokens, token, isChosen: h === head, T, colours });
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

    card({ h, map, own, pieces, ids, token, isChosen, T, colours }) {
      const canvas = html("canvas", {
        class: "small-map",
        role: "img",
        "aria-label": `Head ${h + 1}, the whole matrix`,
      });
      paint(canvas, shades(map, T), T, 1, colours);
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
                    style: `--strength: ${Math.round(100 * shade(own[s], own[most]))}%`,
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
            ` (${percent(own[most])}).${T === 1 ? " One token can only attend to itself." : " Over the whole text:"}`,
          ),
          html(
            "dl",
            { class: "scores" },
            GPT.habits(map, ids).map(({ name, score, even }) =>
              html("div", {}, html("dt", {}, name), html("dd", {}, percent(score), html("small", {}, ` even ${percent(even)}`))),
            ),
          ),
        ),
      );
    },
  });
})();
