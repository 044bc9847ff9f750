// The hidden units of the chosen token, their activation function, and one unit in detail.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, svg, best, chip, count, number, row, largest } = GPT.draw;
  const { activations, dot } = GPT.maths;
  const NAMES = { gelu: "GELU", gelu_tanh: "GELU", relu: "ReLU", swiglu: "SiLU, the gate of SwiGLU" };
  const [WIDTH, HEIGHT, REACH] = [340, 230, 4];
  const WORD = /^ ?\p{L}+$/u;

  GPT.diagram("feedforward", {
    mount(element, model) {
      Object.assign(this, { model, unit: null, activation: activations[model.config.activation] });
      this.layers = GPT.parts.layerChoice(model);
      this.map = GPT.parts.map("Hidden units of the chosen token", (unit) => {
        this.unit = unit;
        this.explain();
      });
      this.curve = svg("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
      this.firing = GPT.parts.bars("The tokens of your text for which the unit is most active");
      this.output = html("p", { class: "context" });
      this.name = html("h4", {});
      element.append(
        html("div", { class: "controls" }, this.layers.element),
        html(
          "div",
          { class: "columns" },
          html(
            "div",
            {},
            html("h4", {}, `The ${count(model.config.d_ff)} hidden units, after activation`),
            this.map.element,
          ),
          html("div", {}, html("h4", {}, `The activation function: ${NAMES[model.config.activation]}`), this.curve),
          html("div", {}, this.name, this.firing.element),
          html("div", {}, html("h4", {}, "Words that its output vector makes more likely"), this.output),
        ),
      );
    },

    update(state) {
      const { pieces, token, layer, trace } = state;
      this.layers.show(state);
      if (this.layer !== layer) this.unit = null;
      Object.assign(this, { state, layer });
      const hidden = row(trace.layers[layer].hidden, token);
      const strongest = best(hidden, 1)[0];
      const unit = this.unit ?? strongest;
      this.map.show(hidden, unit, (j) => `Unit ${j + 1}: ${number(hidden[j])}.`);
      this.drawCurve();
      this.explain(unit);
      const above = hidden.reduce((sum, x) => sum + (x > 0 ? 1 : 0), 0);
      return [
        "In layer " + (layer + 1) + ", ",
        chip(pieces[token]),
        ` gives a value above 0 in ${count(above)} of ${count(hidden.length)} units. ` +
          `Unit ${strongest + 1} is the most active, with ${number(hidden[strongest])}.`,
      ];
    },

    /** The activation function as a curve, with a dot for each unit of the token. */
    drawCurve() {
      const { trace, layer, token } = this.state;
      const before = row(trace.layers[layer].preActivation, token);
      const reach = Math.max(REACH, Math.ceil(largest(before)));
      const x = (value) => 8 + ((value + reach) / (2 * reach)) * (WIDTH - 16);
      const y = (value) => HEIGHT - 40 - (value / reach) * (HEIGHT - 60);
      const points = Array.from({ length: 121 }, (_, i) => -reach + (i * 2 * reach) / 120).map(
        (value) => `${x(value).toFixed(1)},${y(this.activation(value)).toFixed(1)}`,
      );
      this.at = { x, y, before };
      this.spot = svg("circle", { r: 6, class: "spot" });
      this.curve.setAttribute(
        "aria-label",
        `The curve of ${NAMES[this.model.config.activation]}, with the token's ${before.length} units on it`,
      );
      this.curve.replaceChildren(
        svg("line", { x1: x(-reach), x2: x(reach), y1: y(0), y2: y(0), class: "axis" }),
        svg("line", { x1: x(0), x2: x(0), y1: 8, y2: HEIGHT - 14, class: "axis" }),
        svg("text", { x: x(-reach), y: y(0) + 17 }, `−${reach}`),
        svg("text", { x: x(reach), y: y(0) + 17, "text-anchor": "end" }, `${reach}`),
        svg("text", { x: x(0) + 6, y: 16 }, "after"),
        svg("text", { x: x(reach), y: y(0) - 7, "text-anchor": "end" }, "before"),
        svg("polyline", { points: points.join(" "), class: "line" }),
        ...Array.from(before, (value) =>
          svg("circle", { cx: x(value).toFixed(1), cy: y(this.activation(value)).toFixed(1), r: 2.6, class: "dot" }),
        ),
        this.spot,
      );
    },

    /** One unit: its point on the curve, the tokens that activate it, and the words that its output makes more likely. */
    explain(unit = this.unit) {
      const { trace, layer, token, pieces } = this.state;
      const { hidden, preActivation, gated } = trace.layers[layer];
      const width = hidden.shape[1];
      const [before, after] = [preActivation[token * width + unit], hidden[token * width + unit]];
      this.spot.setAttribute("cx", this.at.x(before));
      this.spot.setAttribute("cy", this.at.y(this.activation(before)));
      const times = gated ? `${number(this.activation(before))} after it, times ${number(gated[token * width + unit])} from the other branch: ` : "";
      this.name.textContent = `Unit ${unit + 1}: ${number(before)} before activation, ${times}${number(after)}${gated ? "" : " after it"}`;
      const values = pieces.map((_, t) => hidden[t * width + unit]);
      const most = Math.max(1e-9, ...values);
      const strongest = best(values, 6).sort((a, b) => a - b);
      this.firing.show(
        strongest.map((t) => ({
          label: chip(pieces[t]),
          fraction: values[t] / most,
          text: number(values[t]),
          isMarked: t === token,
        })),
        { most, text: String },
      );
      this.output.replaceChildren(...this.towards(unit).flatMap((id) => [chip(GPT.app.piece(id)), " "]));
    },

    /** The ids of words whose output rows have the largest dot product with the vector that the unit adds to the stream.
     *  Only words, because rows of bytes that do not occur in the training text were never trained. */
    towards(unit) {
      const { head, layers, config, tokenizer } = this.model;
      this.words ??= Uint8Array.from({ length: config.vocab_size }, (_, v) =>
        WORD.test(tokenizer.decode([v])) ? 1 : 0,
      );
      const down = layers[this.layer]["feedforward.down.weight"]; // (C, d_ff)
      const column = Float32Array.from({ length: config.d_model }, (_, c) => down[c * config.d_ff + unit]);
      return best(
        Float32Array.from({ length: config.vocab_size }, (_, v) =>
          this.words[v] ? dot(head, v * column.length, column, 0, column.length) : -Infinity,
        ),
        6,
      );
    },
  });
})();
