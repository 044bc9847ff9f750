// Step 5: the norm before a part, on the chosen token: what comes in, what it is divided by, what the part reads.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, chip, number, row, largest } = GPT.draw;
  const PARTS = ["attention", "feedforward"];

  GPT.diagram("norm", {
    mount(element, model) {
      Object.assign(this, { model, part: 0, isRms: model.config.norm === "rmsnorm" });
      this.layers = GPT.parts.layerChoice(model);
      const choice = GPT.parts.choice("Before", ["attention", "feed-forward"], (part) => {
        this.part = part;
        GPT.app.set({});
      });
      choice.show(0);
      this.strips = GPT.parts.strips("The chosen token's vector before and after the norm");
      this.table = html("table", {});
      element.append(
        html("div", { class: "controls" }, this.layers.element, choice.element),
        this.strips.element,
        html("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "The vector's figures" }, this.table),
      );
    },

    update(state) {
      const { pieces, token, trace, layer } = state;
      this.layers.show(state);
      const inside = trace.layers[layer];
      const before = row(this.part ? inside.afterAttention : inside.input, token);
      const read = row(this.part ? inside.normed2 : inside.normed1, token);
      const [mean, spread] = [meanOf(before), this.isRms ? rootMeanSquare(before) : spreadOf(before)];
      const eps = this.model.config.norm_eps;
      const scaled = before.map((x) => (x - (this.isRms ? 0 : mean)) / Math.sqrt(spread ** 2 + eps));
      const weight = this.model.layers[layer][`${PARTS[this.part]}_norm.weight`];
      const rows = [
        ["as it comes", before],
        [this.isRms ? "divided" : "centred, divided", scaled],
        ["as it is read", read],
      ];
      this.strips.show(
        rows.map(([label, values]) => ({ label, values, most: largest(values) })),
        (c) =>
          `Number ${c + 1}: ${number(before[c])} becomes ${number(scaled[c])}; times its weight ${number(weight[c])}${this.isRms ? "" : ", plus its bias,"} ${number(read[c])}.`,
      );
      this.table.replaceChildren(
        html(
          "thead",
          {},
          html(
            "tr",
            {},
            ["", "mean", "spread", "largest"].map((name) => html("th", { scope: "col" }, name)),
          ),
        ),
        html(
          "tbody",
          {},
          rows.map(([label, values]) =>
            html(
              "tr",
              {},
              html("th", { scope: "row" }, label),
              [meanOf(values), spreadOf(values), largest(values)].map((x) =>
                html("td", { class: "numbers" }, number(x)),
              ),
            ),
          ),
        ),
      );
      return [
        "Before it is read, the vector of ",
        chip(pieces[token]),
        this.isRms
          ? ` is divided by ${number(spread)}, the root of its mean square.`
          : ` loses its mean, ${number(mean, 3)}, and is divided by its spread, ${number(spread)}.`,
      ];
    },
  });

  const meanOf = (values) => values.reduce((sum, x) => sum + x, 0) / values.length;
  const rootMeanSquare = (values) => Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
  function spreadOf(values) {
    const mean = meanOf(values);
    return Math.sqrt(values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length);
  }
})();
