// The norm before a part, for the chosen token: its input, the divisor, and its output.

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
        html("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Mean, standard deviation and largest value" }, this.table),
      );
    },

    update(state) {
      const { pieces, token, trace, layer } = state;
      this.layers.show(state);
      const inside = trace.layers[layer];
      const before = row(this.part ? inside.afterAttention : inside.input, token);
      const read = row(this.part ? inside.normed2 : inside.normed1, token);
      const [mean, divisor] = [meanOf(before), this.isRms ? rootMeanSquare(before) : deviationOf(before)];
      const eps = this.model.config.norm_eps;
      const scaled = before.map((x) => (x - (this.isRms ? 0 : mean)) / Math.sqrt(divisor ** 2 + eps));
      const weight = this.model.layers[layer][`${PARTS[this.part]}_norm.weight`];
      const rows = [
        ["input", before],
        [this.isRms ? "divided" : "centred, divided", scaled],
        ["output", read],
      ];
      this.strips.show(
        rows.map(([label, values], i) => ({ label, values, most: largest(values), colour: i === 0 && "stream" })),
        (c) =>
          `Number ${c + 1}: ${number(before[c])} becomes ${number(scaled[c])}; times the weight ${number(weight[c])}${this.isRms ? "" : ", plus the bias"}: ${number(read[c])}.`,
      );
      this.table.replaceChildren(
        html(
          "thead",
          {},
          html(
            "tr",
            {},
            ["", "mean", "standard deviation", "largest"].map((name) => html("th", { scope: "col" }, name)),
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
              [meanOf(values), deviationOf(values), largest(values)].map((x) =>
                html("td", { class: "numbers" }, number(x)),
              ),
            ),
          ),
        ),
      );
      return [
        "The norm takes the vector of ",
        chip(pieces[token]),
        this.isRms
          ? ` and divides it by ${number(divisor)}, the root of its mean square.`
          : `, subtracts its mean, ${number(mean, 3)}, and divides by its standard deviation, ${number(divisor)}.`,
      ];
    },
  });

  const meanOf = (values) => values.reduce((sum, x) => sum + x, 0) / values.length;
  const rootMeanSquare = (values) => Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
  function deviationOf(values) {
    const mean = meanOf(values);
    return Math.sqrt(values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length);
  }
})();
