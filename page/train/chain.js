// The chain rule by hand: a network with two weights, its loss, and the derivatives, computed from right to left.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, number } = GPT.draw;
  const { slider, button } = GPT.charts;
  const [X, TARGET, RATE] = [2, 5, 0.01];
  const BEGIN = { a: 3, b: 0.5 };

  /** Forward: h = a x, p = b h, loss = (p - target)^2. Backward: each line multiplies what came from its right. */
  function compute({ a, b }) {
    const h = a * X;
    const p = b * h;
    const loss = (p - TARGET) ** 2;
    const dp = 2 * (p - TARGET);
    const db = dp * h; // p = b h: its slope with respect to b is h
    const dh = dp * b; //          and with respect to h it is b
    const da = dh * X; // h = a x
    return { h, p, loss, dp, db, dh, da };
  }

  GPT.diagram("chain", {
    mount(element) {
      this.weights = { ...BEGIN };
      const make = (name) => slider(`Weight ${name}`, { min: -4, max: 4, step: 0.01, text: (value) => number(value) }, (value) => {
        this.weights[name] = value;
        this.last = null;
        GPT.app.set({});
      });
      this.sliders = { a: make("a"), b: make("b") };
      this.nodes = html("ol", { class: "chain" });
      const step = button("One step down", () => this.step());
      const back = button("Start again", () => { this.weights = { ...BEGIN }; this.last = null; GPT.app.set({}); });
      element.append(html("div", { class: "controls" }, this.sliders.a.element, this.sliders.b.element, html("div", { class: "buttons" }, step, back)), this.nodes);
    },

    /** Each weight minus the rate times its slope. */
    step() {
      const { loss, da, db } = compute(this.weights);
      this.weights = { a: this.weights.a - RATE * da, b: this.weights.b - RATE * db };
      this.last = loss;
      GPT.app.set({});
    },

    update() {
      const { a, b } = this.weights;
      const { h, p, loss, dp, db, dh, da } = compute(this.weights);
      this.sliders.a.show(a);
      this.sliders.b.show(b);
      const node = (sign, name, value, slope, how, kind = "") => html("li", { class: kind, "data-sign": sign }, html("b", {}, name), html("span", { class: "chain-value" }, number(value)),
        slope === null ? html("span", { class: "chain-slope" }, "") : html("span", { class: "chain-slope" }, html("span", {}, number(slope)), html("small", {}, how)));
      this.nodes.replaceChildren(
        node("", "x", X, null, "", "is-input"),
        node("×", "a", a, da, `${number(dh)} · x`, "is-weight"),
        node("=", "h = a · x", h, dh, `${number(dp)} · b`),
        node("×", "b", b, db, `${number(dp)} · h`, "is-weight"),
        node("=", "p = b · h", p, dp, `2 · (p − ${TARGET})`),
        node("→", `loss = (p − ${TARGET})²`, loss, 1, "of itself"));
      const moved = compute({ a: a + 0.01, b }).loss - loss;
      const check = `Check it: with a greater by 0.01 the loss changes by ${number(moved, 4)}, and the slope of a says ${number(0.01 * da, 4)}.`;
      return this.last === null || this.last === undefined ? check
        : `One step, with a learning rate of ${RATE}: the loss went from ${number(this.last)} to ${number(loss)}. ${check}`;
    },
  });
})();
