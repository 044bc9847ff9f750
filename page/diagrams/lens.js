// The prediction of the model if it ended after each block: the "logit lens".

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, best, chip, percent, row } = GPT.draw;
  const SHOWN = 5;

  GPT.diagram("lens", {
    mount(element, model) {
      this.model = model;
      this.table = html("table", { class: "lens" });
      element.append(
        html(
          "div",
          { class: "scroll", tabindex: 0, role: "region", "aria-label": "The most likely next tokens after each layer" },
          this.table,
        ),
      );
    },

    update({ pieces, token, trace, next }) {
      const final = best(next(token), 1)[0];
      const vectors = [
        ["embedding", trace.embedded],
        ...trace.layers.map(({ output }, layer) => [`layer ${layer + 1}`, output]),
      ];
      const stages = vectors.map(([name, stream]) => ({
        name,
        probs: GPT.sampling.softmax(this.model.logitsFrom(row(stream, token))),
      }));
      this.table.replaceChildren(
        html(
          "thead",
          {},
          html(
            "tr",
            {},
            html("th", { scope: "col" }, "after"),
            Array.from({ length: SHOWN }, (_, rank) =>
              html("th", { scope: "col" }, rank ? `${rank + 1}` : "most likely"),
            ),
          ),
        ),
        html(
          "tbody",
          {},
          stages.map(({ name, probs }) =>
            html(
              "tr",
              {},
              html("th", { scope: "row" }, name),
              best(probs, SHOWN).map((id) =>
                html(
                  "td",
                  { class: id === final && "is-final", style: `--strength: ${Math.round(100 * probs[id])}%` },
                  chip(GPT.app.piece(id)),
                  html("small", {}, percent(probs[id])),
                ),
              ),
            ),
          ),
        ),
      );
      const at = stages.map(({ probs }) => best(probs, 1)[0] === final).lastIndexOf(false) + 1;
      return [
        "After ",
        chip(pieces[token]),
        " the final prediction is ",
        chip(GPT.app.piece(final)),
        `, with ${percent(next(token)[final])}. `,
        at === 0
          ? "It is in first place from the start."
          : at === stages.length - 1
            ? "It reaches first place only in the last layer."
            : `It is in first place from ${stages[at].name} on.`,
      ];
    },
  });
})();
